import type { V1Pod } from '@kubernetes/client-node';
import type { Log } from '../log.ts';
import { isReason, type Kind, type KubeClient, KubeError, PODS } from './client.ts';
import { Informer } from './informer.ts';
import { decideKruisePod, decideSet, type KruiseChange, type SidecarSet, undoOf } from './open-kruise.ts';
import type { AgentWords, FleetWish, PodStep, Prepared, Provider, StepOptions, Wish } from './provider.ts';

export const SIDECAR_SETS: Kind = { apiVersion: 'apps.kruise.io/v1alpha1', kind: 'SidecarSet', plural: 'sidecarsets' };
const PREPARE_TRIES = 5;

/** Upgrades Pods by an OpenKruise SidecarSet: it changes the images; whose turn it is, and when a reset is too early, is ours. */
export class OpenKruiseProvider implements Provider {
  readonly name = 'OpenKruise';
  readonly #client: Pick<KubeClient, 'get' | 'patch'>;
  readonly #sidecarSet: string;
  /** As it was seen last. */
  #set: SidecarSet | undefined;

  constructor(client: Pick<KubeClient, 'get' | 'patch'>, sidecarSet: string) {
    this.#client = client;
    this.#sidecarSet = sidecarSet;
  }

  /** Tells when somebody changes the SidecarSet, until the signal is aborted. */
  async watch(
    client: Pick<KubeClient, 'list' | 'watch'>,
    onChange: () => void,
    signal: AbortSignal,
    log?: Log,
  ): Promise<void> {
    const changed = (set: SidecarSet) => {
      this.#set = set;
      onChange();
    };
    const options = { fields: `metadata.name=${this.#sidecarSet}`, ...(log !== undefined && { log }) };
    await new Informer<SidecarSet>(client, SIDECAR_SETS, { changed, gone: onChange }, options).run(signal);
  }

  async prepare(wish: FleetWish, signal?: AbortSignal): Promise<Prepared> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#prepare(wish, signal);
      } catch (error) {
        // OpenKruise writes the set's status all the time: decided anew on what it is then.
        if (!isReason(error, 'Conflict') || tries >= PREPARE_TRIES) throw error;
      }
    }
  }

  async #prepare(wish: FleetWish, signal: AbortSignal | undefined): Promise<Prepared> {
    const name = this.#sidecarSet;
    const set = await this.#get(signal);
    if (set === undefined) {
      return { type: 'refused', reason: 'NoSidecarSet', why: `there is no SidecarSet ${name}, or no OpenKruise` };
    }
    const step = decideSet(set, wish);
    if (step.type !== 'change') return step;
    // OpenKruise's webhook writes the new hash in the same call.
    const changed = await this.#client.patch<SidecarSet>(SIDECAR_SETS, { name }, 'merge', step.patch, signal);
    this.#set = changed;
    const after = decideSet(changed, wish);
    if (after.type === 'change') return { type: 'refused', reason: 'OtherSelector', why: `${step.why}: was not taken` };
    return after;
  }

  decide(pod: V1Pod, wish: Wish, agents: AgentWords): PodStep {
    if (this.#set === undefined)
      return { type: 'wait', started: false, why: `SidecarSet ${this.#sidecarSet} is unknown` };
    const step = decideKruisePod(pod, this.#set, wish, agents);
    if (!('patch' in step)) return step;
    const { patch: _, ...decided } = step;
    return decided;
  }

  async step(pod: V1Pod, wish: Wish, agents: AgentWords, { begin, undo, signal }: StepOptions): Promise<PodStep> {
    const set = this.#set ?? (await this.#get(signal));
    if (set === undefined) {
      return { type: 'wait', started: false, why: `there is no SidecarSet ${this.#sidecarSet}` };
    }
    const step = decideKruisePod(pod, set, wish, agents);
    if (step.type === 'upgrade' && !begin) return { type: 'wait', started: false, why: 'its turn has not come' };
    if (step.type === 'failed' && undo && step.undo !== undefined) {
      return this.#patch(pod, undoOf(pod, this.#sidecarSet, wish, step.undo, step.why), signal);
    }
    return 'patch' in step ? this.#patch(pod, step, signal) : step;
  }

  async #patch(pod: V1Pod, { patch, ...step }: KruiseChange, signal: AbortSignal | undefined): Promise<PodStep> {
    const { namespace, name } = pod.metadata ?? {};
    await this.#client.patch(PODS, { namespace, name }, 'strategic', patch, signal);
    return step;
  }

  async #get(signal: AbortSignal | undefined): Promise<SidecarSet | undefined> {
    try {
      this.#set = await this.#client.get<SidecarSet>(SIDECAR_SETS, { name: this.#sidecarSet }, signal);
    } catch (error) {
      // Where there is no OpenKruise the API server knows no such path: it says so in a text and gives no reason.
      if (!(error instanceof KubeError && error.status === 404)) throw error;
      this.#set = undefined;
    }
    return this.#set;
  }
}
