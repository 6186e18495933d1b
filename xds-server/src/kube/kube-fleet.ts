import type { V1Pod } from '@kubernetes/client-node';
import { type RolloutMember, type RolloutPods, SluiceError, toSluiceError } from '@sluice/contract';
import type { Log } from '../log.ts';
import { atOnce } from '../rollout/at-once.ts';
import type { Fleet } from '../rollout/fleet.ts';
import type { Observed, RolloutAction, RolloutState } from '../rollout/state.ts';
import { isReason } from './client.ts';
import { isHeard, lastUpgrade, leave, observePod, type PodFacts, refusalOf, targetImage, wishOf } from './pod-view.ts';
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
  /** undefined: the provider is not ready, for it does not know the Empty image yet. */
  readonly means: (pods: RolloutPods) => Means | undefined;
  /** Protected connections that this upgrade of a proxy cut. */
  readonly cuts: (upgradeId: string) => Promise<number>;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly now?: () => number;
}

/** What a HotUpgrade's status tells of its Pods. */
export interface PodsSeen {
  readonly observed: readonly Observed[];
  readonly refused: readonly { readonly pod: string; readonly reason: string; readonly message: string }[];
  /** Pods that have the pair and no agent that is heard. */
  readonly silent: readonly string[];
  /** Images that they are to have: more than one where the target is a version. */
  readonly images: readonly string[];
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

  /** Rejects with PROVIDER_NOT_READY: that nobody is seen does not mean that nobody is there. */
  async observe({ spec, members }: RolloutState): Promise<readonly Observed[]> {
    const { podsOf, means, cuts, now = Date.now } = this.#options;
    const own = spec.pods === undefined ? [] : podsOf(spec.pods);
    // Of a HotUpgrade that is gone there are none, and no provider: its rollout ends, or it would hold its Pods for ever.
    if (spec.pods === undefined || own.length === 0) return [];
    const way = means(spec.pods);
    if (way === undefined) {
      const { provider, namespace, name } = spec.pods;
      throw new SluiceError('PROVIDER_NOT_READY', `${provider} is not ready for HotUpgrade ${namespace}/${name}`);
    }
    const known = new Map(members.map((one) => [one.name, one]));
    const all: Observed[] = [];
    const ended: { readonly at: number; readonly upgradeId: string }[] = [];
    for (const pod of own) {
      const facts = this.#facts(pod, spec.pods, way);
      const seen = observePod(facts, known.get(nameOf(pod)), now());
      if (seen === undefined) continue;
      const upgradeId = seen.step?.state === 'done' ? lastUpgrade(facts) : undefined;
      if (upgradeId !== undefined) ended.push({ at: all.length, upgradeId });
      all.push(seen);
    }
    // Only what ends now is looked up, by its id: nothing is asked for those that ended before, and no list is searched.
    await atOnce(ended, async ({ at, upgradeId }) => {
      const seen = all[at] as Observed;
      if (seen.step !== undefined) all[at] = { ...seen, step: { ...seen.step, cut: await cuts(upgradeId) } };
    });
    return all;
  }

  /** What is to be told of them. undefined: the provider is not ready. */
  look(pods: RolloutPods, members: readonly RolloutMember[]): PodsSeen | undefined {
    const { podsOf, means, now = Date.now } = this.#options;
    const way = means(pods);
    if (way === undefined) return undefined;
    const known = new Map(members.map((one) => [one.name, one]));
    const observed: Observed[] = [];
    const refused: PodsSeen['refused'][number][] = [];
    const images = new Set<string>();
    const silent: string[] = [];
    for (const pod of podsOf(pods)) {
      const facts = this.#facts(pod, pods, way);
      const seen = observePod(facts, known.get(nameOf(pod)), now());
      const refusal = seen === undefined ? refusalOf(facts) : undefined;
      if (refusal !== undefined) refused.push({ pod: pod.metadata?.name ?? '', ...refusal });
      if (seen === undefined) continue;
      observed.push(seen);
      if (!isHeard(facts.words)) silent.push(pod.metadata?.name ?? '');
      const image = targetImage(facts);
      if (image !== undefined) images.add(image);
    }
    return { observed, refused, silent, images: [...images] };
  }

  async carryOut(action: RolloutAction, state: RolloutState): Promise<void> {
    const member = state.members.find((one) => one.name === action.member);
    // What starts is not ended from here: its agent alone knows whether it serves already. It comes to its end and is taken back.
    if (member !== undefined && action.type !== 'abort') await this.#step(state, member);
  }

  /**
   * Does what is due in Pods that were begun: resets, the end of what did not come up, orders that met a Pod in the middle of
   * something else. Also for a rollout that is over, as long as its Pods drain.
   * @returns how many of its Pods are between two images yet
   */
  async carryOn(state: RolloutState): Promise<number> {
    const { log, signal } = this.#options;
    let between = 0;
    await atOnce(state.members, async (member) => {
      if (signal.aborted) return;
      const under = await this.#step(state, member).catch((thrown) => {
        log.warn({ rollout: state.id, member: member.name, err: toSluiceError(thrown) }, 'a Pod: again later');
        return true;
      });
      if (under) between++;
    });
    return between;
  }

  /** A Pod that is no more. */
  forget(uid: string): void {
    this.#stepped.delete(uid);
  }

  /** @returns whether the Pod is between two images */
  async #step({ id, spec, phase }: RolloutState, member: RolloutMember): Promise<boolean> {
    const { pod: find, means, log, signal } = this.#options;
    const place = podOfProxy(member.name);
    const pod = place && find(place.namespace, place.name);
    const way = spec.pods && means(spec.pods);
    if (pod === undefined || pod.metadata?.uid !== member.uid || member.uid === undefined) return false;
    if (spec.pods === undefined || way === undefined) return true;
    const facts = this.#facts(pod, spec.pods, way);
    const wish = wishOf(facts, member);
    if (wish === undefined) return false;
    const version = pod.metadata?.resourceVersion ?? '';
    if (this.#stepped.get(member.uid) === version) return true;
    // Held against a second step at the same time, which the API server would only refuse.
    this.#stepped.set(member.uid, version);
    let changed = false;
    try {
      const step = await way.provider.step(pod, wish, facts.words, { ...leave(member.state, phase), signal });
      if (step.type === 'wait') return step.started;
      if (step.type !== 'upgrade' && step.type !== 'reset' && step.type !== 'undo') return step.type === 'failed';
      changed = true;
      log.info({ rollout: id, member: member.name, step: step.type, ...step.change }, step.why);
    } catch (thrown) {
      // The Pod has changed or gone meanwhile: what comes next is decided on what it is then.
      if (!isReason(thrown, 'Conflict', 'NotFound')) throw thrown;
    } finally {
      if (!changed && this.#stepped.get(member.uid) === version) this.#stepped.delete(member.uid);
    }
    return true;
  }

  #facts(pod: V1Pod, pods: RolloutPods, { provider, emptyImage }: Means): PodFacts {
    const { namespace = '', name = '', uid = '' } = pod.metadata ?? {};
    const words = this.#options.words.of(namespace, name, uid);
    return { pod, pods, emptyImage, words, decide: (...all) => provider.decide(...all) };
  }
}

export function nameOf({ metadata }: V1Pod): string {
  return proxyOfPod(metadata?.namespace ?? '', metadata?.name ?? '');
}
