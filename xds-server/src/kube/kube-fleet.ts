import type { V1Pod } from '@kubernetes/client-node';
import { type RolloutMember, type RolloutPods, toSluiceError } from '@sluice/contract';
import type { Log } from '../log.ts';
import type { Fleet } from '../rollout/fleet.ts';
import type { Observed, RolloutAction, RolloutState } from '../rollout/state.ts';
import { isReason } from './client.ts';
import { leave, observePod, type PodFacts, wishOf } from './pod-view.ts';
import type { Provider } from './provider.ts';
import { podOfProxy, proxyOfPod, type Words } from './words.ts';

export interface Means {
  readonly provider: Provider;
  readonly emptyImage: string;
}

export interface KubeFleetOptions {
  /** A Pod as it was last seen. */
  readonly pod: (namespace: string, name: string) => V1Pod | undefined;
  /** The Pods of a rollout: those that its selector means and no older HotUpgrade has. */
  readonly podsOf: (pods: RolloutPods) => readonly V1Pod[];
  readonly words: Words;
  /** undefined: its provider is not there, or does not know the Empty image yet. */
  readonly means: (pods: RolloutPods) => Means | undefined;
  /** Protected connections that upgrades of this proxy cut which were made since then. */
  readonly cuts: (proxy: string, since: number) => Promise<number>;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly now?: () => number;
}

/**
 * The Pods of a HotUpgrade as a fleet of the rollout planner. An order is a word in the member's state, which is stored before
 * it comes here; the next step of a Pod is a function of that state, the Pod and its agents' words. So an order that comes
 * twice, or to another leader, does nothing twice.
 */
export class KubeFleet implements Fleet {
  readonly #options: KubeFleetOptions;
  /** By uid: version of the Pod that a step was made on. Until a newer one is seen a further step would only be refused. */
  readonly #stepped = new Map<string, string>();

  constructor(options: KubeFleetOptions) {
    this.#options = options;
  }

  async observe({ spec, members }: RolloutState): Promise<readonly Observed[]> {
    const { podsOf, cuts, now = Date.now } = this.#options;
    if (spec.pods === undefined) return [];
    const known = new Map(members.map((one) => [one.name, one]));
    const all: Observed[] = [];
    for (const pod of podsOf(spec.pods)) {
      const facts = this.#facts(pod, spec.pods);
      if (facts === undefined) continue;
      const member = known.get(nameOf(pod));
      const seen = observePod(facts, member, now());
      if (seen === undefined) continue;
      const over = seen.step?.state === 'done' && member !== undefined;
      all.push(over ? { ...seen, step: { ...seen.step, cut: await cuts(seen.name, member.since) } as never } : seen);
    }
    return all;
  }

  async carryOut(action: RolloutAction, state: RolloutState): Promise<void> {
    const member = state.members.find((one) => one.name === action.member);
    // What starts is not ended from here: its agent alone knows whether it serves already. It comes to its end and is taken back.
    if (member !== undefined && action.type !== 'abort') await this.#step(state, member);
  }

  /**
   * Does what is due in Pods that were begun: resets, the end of what did not come up, orders that met a Pod in the middle of
   * something else. Also for a rollout that is over, as long as its Pods drain.
   */
  async carryOn(state: RolloutState): Promise<void> {
    const { log } = this.#options;
    for (const member of state.members) {
      if (this.#options.signal.aborted) return;
      await this.#step(state, member).catch((thrown) => {
        log.warn({ rollout: state.id, member: member.name, err: toSluiceError(thrown) }, 'a Pod: again later');
      });
    }
  }

  /** A Pod that is no more. */
  forget(uid: string): void {
    this.#stepped.delete(uid);
  }

  async #step({ id, spec }: RolloutState, member: RolloutMember): Promise<void> {
    const { pod: find, means, log, signal } = this.#options;
    const place = podOfProxy(member.name);
    const pod = place && find(place.namespace, place.name);
    const way = spec.pods && means(spec.pods);
    if (spec.pods === undefined || way === undefined || pod?.metadata?.uid !== member.uid || member.uid === undefined)
      return;
    const facts = this.#facts(pod as V1Pod, spec.pods);
    const wish = facts && wishOf(facts, member);
    if (facts === undefined || wish === undefined) return;
    const version = facts.pod.metadata?.resourceVersion ?? '';
    if (this.#stepped.get(member.uid) === version) return;
    try {
      const step = await way.provider.step(facts.pod, wish, facts.words, { ...leave(member.state), signal });
      if (step.type !== 'upgrade' && step.type !== 'reset' && step.type !== 'undo') return;
      this.#stepped.set(member.uid, version);
      log.info({ rollout: id, member: member.name, step: step.type, ...step.change }, step.why);
    } catch (thrown) {
      // The Pod has changed or gone meanwhile: what comes next is decided on what it is then.
      if (!isReason(thrown, 'Conflict', 'NotFound')) throw thrown;
    }
  }

  #facts(pod: V1Pod, pods: RolloutPods): PodFacts | undefined {
    const emptyImage = this.#options.means(pods)?.emptyImage;
    if (emptyImage === undefined) return undefined;
    const { namespace = '', name = '', uid = '' } = pod.metadata ?? {};
    return { pod, pods, emptyImage, words: this.#options.words.of(namespace, name, uid) };
  }
}

export function nameOf({ metadata }: V1Pod): string {
  return proxyOfPod(metadata?.namespace ?? '', metadata?.name ?? '');
}
