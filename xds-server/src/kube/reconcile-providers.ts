import { isDeepStrictEqual } from 'node:util';
import type { V1Pod } from '@kubernetes/client-node';
import { DEFAULT_POLICY, isRolloutOver, type RolloutPhase, type RolloutPods } from '@sluice/contract';
import type { Log } from '../log.ts';
import { maxUnavailableOf, partitionOf } from '../rollout/numbers.ts';
import type { RolloutState } from '../rollout/state.ts';
import { isReason, type KubeClient } from './client.ts';
import { type HotUpgrade, type Problem, podsOf, rolloutSpecOf } from './hotupgrade.ts';
import { InPlaceProvider } from './in-place-driver.ts';
import type { Means } from './kube-fleet.ts';
import { OpenKruiseProvider } from './open-kruise-driver.ts';
import { targetImage } from './pod-view.ts';
import type { FleetWish, Prepared } from './provider.ts';

interface Kruise {
  readonly provider: OpenKruiseProvider;
  readonly end: AbortController;
  wish?: FleetWish;
  prepared?: Prepared;
}

export interface Preparing {
  readonly hup: HotUpgrade;
  readonly state: RolloutState | undefined;
  readonly pods: readonly V1Pod[];
  readonly signal: AbortSignal;
}

/** Who changes the Pods of each HotUpgrade, and whether it is ready to. */
export class Providers {
  readonly #client: KubeClient;
  readonly #inPlace: InPlaceProvider;
  /** By name of the SidecarSet. */
  readonly #kruise = new Map<string, Kruise>();
  readonly #log: Log;
  readonly #onChange: (sidecarSet: string) => void;
  readonly #signal: AbortSignal;

  constructor(client: KubeClient, onChange: (sidecarSet: string) => void, log: Log, signal: AbortSignal) {
    this.#client = client;
    this.#inPlace = new InPlaceProvider(client);
    this.#onChange = onChange;
    this.#log = log;
    this.#signal = signal;
  }

  /** undefined: not ready. */
  means({ provider, emptyImage, sidecarSet = '' }: RolloutPods): Means | undefined {
    if (provider === 'InPlace') return emptyImage === undefined ? undefined : { provider: this.#inPlace, emptyImage };
    const kruise = this.#kruise.get(sidecarSet);
    return kruise?.prepared?.type === 'ready'
      ? { provider: kruise.provider, emptyImage: kruise.prepared.emptyImage }
      : undefined;
  }

  /** Sets what holds for all Pods at once. Resolves to why nothing can be begun. */
  async prepare({ hup, state, pods, signal }: Preparing): Promise<Problem | undefined> {
    const rollout = followed(hup, state);
    const own = rollout?.spec.pods ?? podsOf(hup);
    const { sidecarSet } = own;
    if (own.provider === 'InPlace' || sidecarSet === undefined) return undefined;
    // Nothing is to be begun: then nothing is set either.
    if (rollout === undefined && (hup.spec.strategy?.paused || hup.metadata?.deletionTimestamp !== undefined))
      return undefined;
    const kruise = this.#of(sidecarSet);
    const image = imageFor(own, pods, kruise.prepared);
    if ('problem' in image) return image.problem;
    const wish = fleetWish(hup, rollout, pods.length, image.value);
    if (kruise.prepared?.type === 'ready' && isDeepStrictEqual(kruise.wish, wish)) return undefined;
    try {
      kruise.prepared = await kruise.provider.prepare(wish, signal);
      kruise.wish = wish;
    } catch (thrown) {
      // Somebody else wrote it: its watch brings the next form.
      if (!isReason(thrown, 'Conflict')) throw thrown;
    }
    const { prepared } = kruise;
    return prepared?.type === 'refused' ? { reason: prepared.reason, message: prepared.why } : undefined;
  }

  #of(name: string): Kruise {
    const known = this.#kruise.get(name);
    if (known !== undefined) return known;
    const made: Kruise = { provider: new OpenKruiseProvider(this.#client, name), end: new AbortController() };
    this.#kruise.set(name, made);
    const changed = (): void => {
      // What was set may be so no more.
      delete made.wish;
      this.#onChange(name);
    };
    void made.provider.watch(this.#client, changed, AbortSignal.any([made.end.signal, this.#signal]), this.#log);
    return made;
  }
}

/**
 * The rollout that the SidecarSet follows, also when it has ended: the image of another target goes in together with the selector
 * of its first turn, or OpenKruise would begin Pods by itself. undefined: none yet, or the one that ended had another SidecarSet.
 */
function followed(hup: HotUpgrade, state: RolloutState | undefined): RolloutState | undefined {
  const pods = state?.spec.pods;
  if (state === undefined || pods === undefined || !isRolloutOver(state.phase)) return state;
  const next = podsOf(hup);
  return pods.provider === next.provider && pods.sidecarSet === next.sidecarSet ? state : undefined;
}

/** OpenKruise has one image for all of its Pods. */
function imageFor(
  pods: RolloutPods,
  all: readonly V1Pod[],
  prepared: Prepared | undefined,
): { readonly value: string } | { readonly problem: Problem } {
  if (pods.target.image !== undefined) return { value: pods.target.image };
  const emptyImage = prepared?.type === 'ready' ? prepared.emptyImage : '';
  const decide = () => ({ type: 'gone' }) as const;
  const images = new Set(all.map((pod) => targetImage({ pod, pods, words: {}, emptyImage, decide })));
  const [image] = images;
  if (images.size === 1 && image !== undefined) return { value: image };
  const message = `expected one image for version ${pods.target.version}, found ${images.size}: give the image`;
  return { problem: { reason: 'TargetUnresolved', message } };
}

/** Failed is a way back on which some got stuck. */
const BACK: ReadonlySet<RolloutPhase> = new Set(['RollingBack', 'RolledBack', 'Failed']);

function fleetWish(hup: HotUpgrade, state: RolloutState | undefined, total: number, image: string): FleetWish {
  const { namespace, selector, container } = podsOf(hup);
  const { strategy } = rolloutSpecOf(hup, DEFAULT_POLICY);
  const back = state !== undefined && BACK.has(state.phase);
  const over = state !== undefined && isRolloutOver(state.phase);
  return {
    namespace,
    selector: selector as FleetWish['selector'],
    container,
    image,
    back,
    paused: hup.spec.strategy?.paused ?? false,
    maxUnavailable: maxUnavailableOf(strategy, total),
    until: strategy.until,
    ...(over && { kept: keptOf(state, partitionOf(strategy, total)) }),
  };
}

/** How many Pods stay as they are when a rollout is over: of one that was given up all that had no turn, and who could not go back. */
function keptOf({ phase, members }: RolloutState, partition: number): number {
  if (phase === 'Failed') return members.filter(({ state }) => state === 'stuck').length;
  if (phase !== 'Aborted') return partition;
  return members.filter(({ state }) => !['current', 'draining', 'upgraded', 'stuck'].includes(state)).length;
}
