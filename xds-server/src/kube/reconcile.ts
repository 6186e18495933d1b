import { isDeepStrictEqual } from 'node:util';
import type { KubernetesObject, V1Pod } from '@kubernetes/client-node';
import {
  type DrainPolicy,
  isRolloutOver,
  type RolloutEntry,
  type RolloutPods,
  SluiceError,
  toSluiceError,
} from '@sluice/contract';
import type { Log } from '../log.ts';
import { needsMetrics } from '../rollout/analysis.ts';
import { type MetricsSource, Rollouts } from '../rollout/index.ts';
import { partitionOf } from '../rollout/numbers.ts';
import type { RolloutState } from '../rollout/state.ts';
import type { Store } from '../store/store.ts';
import type { KubeClient } from './client.ts';
import { isReason } from './client.ts';
import { type Happening, tell } from './events.ts';
import {
  HOT_UPGRADES,
  type HotUpgrade,
  type HotUpgradeStatus,
  type Problem,
  podsOf,
  policyOf,
  rolloutSpecOf,
} from './hotupgrade.ts';
import { sidecarSetOwner } from './hotupgrade-claims.ts';
import { decideHotUpgrade } from './hotupgrade-decide.ts';
import { conditionEvents, eventOf } from './hotupgrade-events.ts';
import { withFinalizer, withoutFinalizer } from './hotupgrade-finalizer.ts';
import { endedBadly, statusOf } from './hotupgrade-status.ts';
import { withoutMissing } from './installed-crds.ts';
import { KubeFleet, type PodsSeen } from './kube-fleet.ts';
import type { KubeView } from './kube-view.ts';
import { slotContainer } from './pod-view.ts';
import { judgePolicy } from './reconcile-policies.ts';
import type { Providers } from './reconcile-providers.ts';
import { ReconcileQueue } from './reconcile-queue.ts';
import { podOfProxy, type Words } from './words.ts';

export interface ReconcilerOptions {
  readonly client: KubeClient;
  readonly view: KubeView;
  readonly words: Words;
  readonly store: Store;
  readonly providers: Providers;
  readonly metrics?: MetricsSource | undefined;
  readonly standard: DrainPolicy;
  readonly log: Log;
  /** Of this term of leading: the fence of each status, and when it is over. */
  readonly fence: number;
  readonly signal: AbortSignal;
  /** Who writes events. */
  readonly identity: string;
  /** Fields by kind that the installed CRDs lack. */
  readonly missing: () => Readonly<Record<string, readonly string[]>>;
  readonly onRollout?: (state: RolloutState) => void;
  readonly onEntry?: (entry: RolloutEntry) => void;
}

/** A fleet of thousands speaks all the time: its status is written once a second. */
const gapOf = (pods: number): number => Math.min(1_000, Math.max(100, pods / 2));
/** Least time between two writes of a status in which only counts changed. */
const STATUS_MS = 1_000;

/** Carries HotUpgrades through their Pods, for one term of leading. */
export class Reconciler {
  readonly rollouts: Rollouts;
  readonly #options: ReconcilerOptions;
  readonly #fleet: KubeFleet;
  readonly #queue: ReconcileQueue;
  readonly #policies: ReconcileQueue;
  /** The newest rollout of each HotUpgrade, by its uid. */
  readonly #states = new Map<string, RolloutState>();
  /** What was written last, by key; of one that is made anew under the same name nothing was. */
  readonly #written = new Map<
    string,
    { readonly uid: string; readonly status: HotUpgradeStatus; readonly at: number }
  >();
  #telling: Promise<void> = Promise.resolve();

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    const { view, words, store, providers, log, signal, metrics } = options;
    this.#fleet = new KubeFleet({
      pod: (namespace, name) => view.pod(namespace, name),
      podsOf: (pods) => this.#own(pods),
      words,
      means: (pods) => providers.means(pods),
      cuts: (upgradeId) => cutsOf(store, upgradeId),
      log,
      signal,
    });
    this.rollouts = new Rollouts({
      store,
      fleet: this.#fleet,
      log,
      ...(metrics !== undefined && { metrics }),
      own: ({ pods }) => pods !== undefined,
      onRollout: (state) => this.#moved(state),
      onEntry: (entry) => this.#recorded(entry),
    });
    const onError = (key: string, error: unknown, waitMs: number): void =>
      log.warn({ key, waitMs, err: toSluiceError(error) }, 'not reconciled: again later');
    const gapMs = (key: string): number => gapOf(this.#written.get(key)?.status.total ?? 0);
    this.#queue = new ReconcileQueue({ work: (key) => this.#reconcile(key), onError, gapMs, signal });
    this.#policies = new ReconcileQueue({
      work: (key) => judgePolicy(options, key),
      onError,
      gapMs: () => 100,
      signal,
    });
  }

  /** Takes up what an earlier leader left. Rejects when the store can not be read. */
  async start(): Promise<void> {
    const { store, view, words, signal } = this.#options;
    for (const { state } of (await store.rollouts()).toReversed()) this.#remember(state);
    const ends = [
      view.listen({
        hotUpgrade: (key) => this.#changed(key),
        drainPolicy: (key) => this.#policies.add(key),
        podGone: ({ metadata }: V1Pod) => this.#fleet.forget(metadata?.uid ?? ''),
      }),
      words.onChange((namespace, pod) => view.touch(namespace, pod)),
    ];
    signal.addEventListener('abort', () => {
      for (const end of ends) end();
      void this.rollouts.close();
    });
    await this.#prepareAll();
    await this.rollouts.start();
    for (const { metadata } of view.hotUpgrades()) this.#queue.add(`${metadata?.namespace}/${metadata?.name}`);
    for (const { metadata } of view.drainPolicies()) this.#policies.add(`${metadata?.namespace}/${metadata?.name}`);
  }

  /** An Envoy of that proxy crashed; `slot`: of its agent. What served before is not the target's. */
  crashed(proxy: string, uid: string | undefined, slot: string): void {
    const place = podOfProxy(proxy);
    const pod = place && this.#options.view.pod(place.namespace, place.name);
    if (pod === undefined) return;
    for (const { members, spec } of this.rollouts.active()) {
      const member = members.find((one) => one.name === proxy && one.uid === uid);
      const image = slotContainer(pod, spec.pods?.container ?? '', slot)?.image;
      if (member?.upgradeId === undefined || image === undefined || image === member.from) continue;
      this.rollouts.crashed(proxy, member.upgradeId);
    }
  }

  /** All is looked at once more, such as when the installed CRDs changed. */
  again(): void {
    for (const { metadata } of this.#options.view.hotUpgrades())
      this.#queue.add(`${metadata?.namespace}/${metadata?.name}`);
  }

  #changed(key: string): void {
    this.#queue.add(key);
    const [namespace = '', name = ''] = key.split('/');
    // By name: that of a HotUpgrade that is gone has to hear of it too.
    for (const { id, spec } of this.rollouts.active())
      if (spec.pods?.namespace === namespace && spec.pods.name === name) this.rollouts.changed(id);
  }

  #moved(state: RolloutState): void {
    this.#remember(state);
    this.#options.onRollout?.(state);
    const { pods } = state.spec;
    if (pods !== undefined) this.#queue.add(`${pods.namespace}/${pods.name}`);
  }

  #remember(state: RolloutState): void {
    const uid = state.spec.pods?.uid;
    if (uid === undefined) return;
    const known = this.#states.get(uid);
    if (known === undefined || known.id === state.id || known.createdAt <= state.createdAt)
      this.#states.set(uid, state);
  }

  #recorded(entry: RolloutEntry): void {
    this.#options.onEntry?.(entry);
    const happening = eventOf(entry);
    const state = [...this.#states.values()].find((one) => one.id === entry.rolloutId);
    const { namespace = '', name = '' } = state?.spec.pods ?? {};
    const hup = this.#options.view.hotUpgrade(namespace, name);
    if (hup !== undefined && happening !== undefined) this.#tell(hup, [happening]);
  }

  /** One after the other, so that a burst of them does not become a burst of calls. */
  #tell(about: KubernetesObject, happenings: readonly Happening[]): void {
    const { client, identity, log, signal } = this.#options;
    for (const one of happenings) {
      this.#telling = this.#telling.then(async () => {
        if (signal.aborted) return;
        await tell(client, about, one, identity).catch((thrown) =>
          log.warn({ reason: one.reason, err: toSluiceError(thrown) }, 'an event could not be told'),
        );
      });
    }
  }

  #own(pods: RolloutPods): readonly V1Pod[] {
    const { view } = this.#options;
    const hup = view.hotUpgrade(pods.namespace, pods.name);
    return hup?.metadata?.uid === pods.uid ? view.claims(hup).own : [];
  }

  /** A provider that has something to set for all Pods is asked before the first look at them. */
  async #prepareAll(): Promise<void> {
    for (const hup of this.#options.view.hotUpgrades()) {
      const state = this.#states.get(hup.metadata?.uid ?? '');
      if (state?.spec.pods === undefined || isRolloutOver(state.phase)) continue;
      await this.#prepare(hup, state).catch(() => undefined);
    }
  }

  async #prepare(hup: HotUpgrade, state: RolloutState | undefined): Promise<Problem | undefined> {
    const { providers, view, signal } = this.#options;
    const owner = sidecarSetOwner(hup, view.hotUpgrades());
    if (owner !== undefined) {
      const message = `SidecarSet ${hup.spec.sidecarSet} belongs to HotUpgrade ${owner.metadata?.name}, which is older`;
      return { reason: 'OtherHotUpgrade', message };
    }
    const { own, conflicts } = view.claims(hup);
    // All its Pods are another one's: it has nothing to set for them.
    if (own.length === 0 && conflicts.length > 0) return undefined;
    return providers.prepare({ hup, state, pods: own, signal });
  }

  async #reconcile(key: string): Promise<void> {
    const { view, log } = this.#options;
    const [namespace = '', name = ''] = key.split('/');
    const seen = view.hotUpgrade(namespace, name);
    if (seen === undefined) return this.#forget(key);
    const uid = seen.metadata?.uid ?? '';
    if (this.#written.get(key)?.uid !== uid) this.#written.delete(key);
    const held = await withFinalizer(this.#options, seen);
    const written = this.#written.get(key)?.status;
    // The informer may not have seen yet what was written here last.
    const hup = written === undefined ? held : { ...held, status: written };
    const missing = this.#options.missing().HotUpgrade ?? [];
    const deleting = hup.metadata?.deletionTimestamp !== undefined;
    const { problem: wrong, spec } = this.#resolve(hup);
    const unready = await this.#prepare(hup, this.#states.get(uid));
    // Without its SidecarSet nothing of its Pods is seen or done any more: there is nothing to wait for.
    if (deleting && unready?.reason === 'NoSidecarSet') return withoutFinalizer(this.#options, hup);
    let problem = wrong ?? unready;
    const pods = podsOf(hup);
    const look = (): PodsSeen | undefined => this.#fleet.look(pods, this.#states.get(uid)?.members ?? []);
    const before = this.#states.get(uid);
    let between = before === undefined ? 0 : await this.#fleet.carryOn(before);
    const found = look();
    const total = found?.observed.length ?? 0;
    const turned = new Set(before?.members.filter((one) => one.state !== 'waiting').map((one) => one.uid));
    const decision = decideHotUpgrade({
      // A controller that does not see all that is asked for begins nothing.
      spec: problem !== undefined || missing.some((one) => one.startsWith('spec')) ? undefined : spec,
      paused: hup.spec.strategy?.paused ?? false,
      deleting,
      state: before,
      total,
      outdated: found?.observed.filter((one) => !one.upToDate && !turned.has(one.uid)).length ?? 0,
      kept: spec === undefined ? 0 : partitionOf(spec.strategy, total),
      between,
      endedBadly: endedBadly(hup),
    });
    if (decision.type === 'release') return withoutFinalizer(this.#options, hup);
    try {
      if (decision.type === 'create') this.#remember(await this.rollouts.create(decision.spec));
      if (decision.type === 'event' && before !== undefined) {
        this.#remember(await this.rollouts.event(before.id, decision.event));
      }
    } catch (thrown) {
      const error = toSluiceError(thrown);
      if (!['CONFIG_INVALID', 'ROLLOUT_CONFLICT', 'PROXY_UNKNOWN'].includes(error.code)) throw thrown;
      log.warn({ key, err: error }, 'a rollout could not be made');
      problem = { reason: 'RolloutRefused', message: error.message };
    }
    const state = this.#states.get(uid);
    if (state !== undefined && state !== before) between = await this.#fleet.carryOn(state);
    const { conflicts } = view.claims(hup);
    const { fence } = this.#options;
    const status = statusOf({
      hup,
      state,
      seen: look(),
      conflicts,
      problem,
      missing,
      between,
      fence,
      now: new Date(),
    });
    await this.#write(key, hup, status, missing);
  }

  #resolve(hup: HotUpgrade): { spec?: ReturnType<typeof rolloutSpecOf>; problem?: Problem } {
    const { view, standard, metrics } = this.#options;
    const policy = policyOf(hup, (namespace, name) => view.drainPolicy(namespace, name), standard);
    if ('problem' in policy) return policy;
    const spec = rolloutSpecOf(hup, policy.value);
    if (!needsMetrics(spec) || metrics !== undefined) return { spec };
    const message = 'maxFailedRequests and maxP99Ms need a source of metrics: give the controller one (--metrics)';
    return { problem: { reason: 'MetricsUnavailable', message } };
  }

  #forget(key: string): void {
    this.#written.delete(key);
    this.#queue.forget(key);
    const uids = new Set(this.#options.view.hotUpgrades().map((one) => one.metadata?.uid));
    for (const uid of this.#states.keys()) if (!uids.has(uid)) this.#states.delete(uid);
  }

  async #write(key: string, hup: HotUpgrade, status: HotUpgradeStatus, missing: readonly string[]): Promise<void> {
    const { client, signal } = this.#options;
    const last = this.#written.get(key);
    const known = last?.status ?? hup.status;
    if (known !== undefined && isDeepStrictEqual(plain(known), plain(status))) return;
    const wait = (last?.at ?? 0) + STATUS_MS - Date.now();
    const moved = known?.phase !== status.phase || !isDeepStrictEqual(told(known), told(status));
    if (wait > 0 && !moved) return this.#queue.add(key, wait);
    this.#tell(hup, conditionEvents(known, status));
    const { apiVersion, kind } = HOT_UPGRADES;
    const { namespace, name } = hup.metadata ?? {};
    const written = { apiVersion, kind, metadata: { namespace, name }, status: withoutMissing(status, missing) };
    try {
      await client.apply(HOT_UPGRADES, written as KubernetesObject, { subresource: 'status', signal });
    } catch (thrown) {
      if (isReason(thrown, 'NotFound')) return;
      throw thrown;
    }
    this.#written.set(key, { uid: hup.metadata?.uid ?? '', status, at: Date.now() });
  }
}

/** Protected connections that it cut: what policy or a person gave up is not among them. */
async function cutsOf(store: Store, upgradeId: string): Promise<number> {
  const state = (await store.upgrade(upgradeId))?.state;
  if (state === undefined || state.override !== undefined) return 0;
  return (state.connections?.cut ?? []).filter((one) => one.released === undefined).length;
}

/** Without what says the same again. */
function plain(status: HotUpgradeStatus): unknown {
  return JSON.parse(JSON.stringify(status));
}

/** What of a status is told at once: its conditions, without their words. */
function told(status: HotUpgradeStatus | undefined): unknown {
  return status?.conditions?.map(({ type, status: is, reason, observedGeneration }) => [
    type,
    is,
    reason,
    observedGeneration,
  ]);
}

/** Thrown to who asks a replica that does not lead. */
export function notLeading(): SluiceError {
  return new SluiceError('NOT_LEADER', 'rollouts of HotUpgrades are carried out by the leader');
}
