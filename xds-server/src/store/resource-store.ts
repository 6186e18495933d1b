import type { KubernetesObject } from '@kubernetes/client-node';
import {
  type EndedConnection,
  isRolloutOver,
  isTerminal,
  type RecordEntry,
  type RolloutEntry,
  SluiceError,
  type UpgradeTarget,
} from '@sluice/contract';
import type { UpgradeState } from '../drain/state.ts';
import type { Kind, KubeClient } from '../kube/client.ts';
import { Informer } from '../kube/informer.ts';
import { type Log, SILENT } from '../log.ts';
import type { RolloutState } from '../rollout/state.ts';
import { MeshProxies, type MeshProxySpec, rowsOf } from './resource-agents.ts';
import {
  MESH_PROXIES,
  PROXY_LABEL,
  PROXY_ROLLOUTS,
  PROXY_UPGRADES,
  RECORD_CHUNKS,
  StateApi,
  type StateObject,
} from './resource-api.ts';
import { type DocumentSpec, Documents } from './resource-documents.ts';
import { EndedChunks } from './resource-ended.ts';
import { labelValue } from './resource-names.ts';
import { MAX_PAYLOAD_BYTES, type Payload, pack, sizeOf } from './resource-payload.ts';
import type { AgentRow, Ended, Store, StoreChange, Stored, StoredRollout } from './store.ts';

export interface ResourceStoreOptions {
  readonly client: KubeClient;
  /** Where the state is: the controller's own namespace. */
  readonly namespace: string;
  readonly log?: Log;
  /** Term of this leader, written into rollouts: the API server refuses a smaller one. */
  readonly fence?: () => number | undefined;
  /** How long what agents say, and ends of connections, may wait for more of it. Milliseconds. */
  readonly agentsMs?: number;
  readonly endedMs?: number;
}

const PING_MS = 5_000;

/**
 * The state as custom resources (kube/state-crds.ts): no second database, and every replica can go on with it. One object an
 * upgrade and one a rollout hold state and record; MeshProxy what agents said; RecordChunk what would not fit.
 */
export class ResourceStore implements Store {
  /** Thousands of Pods come and go: their past is not what etcd is for. */
  readonly keep = 5;
  readonly #api: StateApi;
  readonly #log: Log;
  readonly #upgrades: Documents<UpgradeState, RecordEntry>;
  readonly #rollouts: Documents<RolloutState, RolloutEntry>;
  readonly #ended: EndedChunks;
  readonly #agents: MeshProxies;

  constructor({ client, namespace, log = SILENT, fence, agentsMs, endedMs }: ResourceStoreOptions) {
    this.#api = new StateApi(client, namespace);
    this.#log = log;
    this.#upgrades = new Documents<UpgradeState, RecordEntry>(this.#api, {
      kind: PROXY_UPGRADES,
      what: 'upgrade',
      conflict: 'UPGRADE_CONFLICT',
      labels: ({ proxy }) => ({ [PROXY_LABEL]: labelValue(proxy) }),
      columns: ({ proxy, phase, target, reason }) => ({ proxy, phase, target: targetText(target), reason }),
      fit: fitUpgrade,
      isOver: ({ phase }) => isTerminal(phase),
    });
    this.#rollouts = new Documents<RolloutState, RolloutEntry>(this.#api, {
      kind: PROXY_ROLLOUTS,
      what: 'rollout',
      conflict: 'ROLLOUT_CONFLICT',
      labels: () => ({}),
      // Those of HotUpgrades are the leader's alone.
      columns: (state) => ({
        ...rolloutColumns(state),
        ...fenced(state.spec.pods === undefined ? undefined : fence?.()),
      }),
      fit: pack,
      isOver: ({ phase }) => isRolloutOver(phase),
    });
    this.#ended = new EndedChunks(this.#api, (id) => this.#upgrades.uid(id), { log, firstMs: endedMs });
    this.#agents = new MeshProxies(this.#api, { log, firstMs: agentsMs });
  }

  /** Calls of the API server so far, by verb and kind. */
  get calls(): Readonly<Record<string, number>> {
    return this.#api.calls;
  }

  agents(): Promise<readonly AgentRow[]> {
    return this.#agents.all();
  }

  putAgent(row: AgentRow): Promise<void> {
    return this.#agents.put(row);
  }

  async upgrades(filter: { readonly proxy?: string; readonly limit?: number } = {}): Promise<readonly Stored[]> {
    return this.#readable(this.#upgrades, await this.#listed(filter.proxy), filter.limit);
  }

  upgrade(id: string): Promise<Stored | undefined> {
    return this.#upgrades.get(id);
  }

  insertUpgrade(state: UpgradeState, entries: readonly RecordEntry[]): Promise<Stored> {
    return this.#upgrades.insert(state, entries);
  }

  updateUpgrade(state: UpgradeState, expected: string, entries: readonly RecordEntry[]): Promise<Stored> {
    return this.#upgrades.update(state, expected, entries);
  }

  async prune(proxy: string, keep: number): Promise<void> {
    const ended = (await this.#listed(proxy)).filter(({ spec }) => isTerminal(spec.phase as UpgradeState['phase']));
    for (const { spec } of ended.slice(keep)) {
      await this.#upgrades.delete(spec.id);
      this.#ended.forget(spec.id);
    }
  }

  appendEnded(upgradeId: string, items: readonly EndedConnection[], dropped: number): Promise<void> {
    return this.#ended.append(upgradeId, items, dropped);
  }

  ended(upgradeId: string): Promise<Ended> {
    return this.#ended.read(upgradeId);
  }

  record(upgradeId: string): Promise<readonly RecordEntry[]> {
    return this.#upgrades.record(upgradeId);
  }

  async rollouts(): Promise<readonly StoredRollout[]> {
    return this.#readable(this.#rollouts, await this.#rollouts.list());
  }

  rollout(id: string): Promise<StoredRollout | undefined> {
    return this.#rollouts.get(id);
  }

  insertRollout(state: RolloutState, entries: readonly RolloutEntry[]): Promise<StoredRollout> {
    return this.#rollouts.insert(state, entries);
  }

  updateRollout(state: RolloutState, expected: string, entries: readonly RolloutEntry[]): Promise<StoredRollout> {
    return this.#rollouts.update(state, expected, entries);
  }

  async pruneRollouts(keep: number): Promise<void> {
    const all = await this.#rollouts.list();
    const ended = all.filter(({ spec }) => isRolloutOver(spec.phase as RolloutState['phase']));
    for (const { spec } of ended.slice(keep)) await this.#rollouts.delete(spec.id);
  }

  rolloutRecord(rolloutId: string): Promise<readonly RolloutEntry[]> {
    return this.#rollouts.record(rolloutId);
  }

  /** Resumable: the MeshProxy, by which it is found, goes last. */
  async forget(proxy: string): Promise<void> {
    for (const { spec } of await this.#listed(proxy)) {
      await this.#upgrades.delete(spec.id);
      this.#ended.forget(spec.id);
    }
    await this.#agents.forget(proxy);
  }

  watch(onChange: (change: StoreChange) => void, signal: AbortSignal): void {
    const { client, namespace } = this.#api;
    const options = { namespace, log: this.#log };
    const tell = (what: string, changes: () => readonly StoreChange[]): void => {
      try {
        for (const change of changes()) onChange(change);
      } catch (error) {
        this.#log.warn({ error: (error as Error).message }, `${what}: not told`);
      }
    };
    const follow = <T extends KubernetesObject>(
      kind: Kind,
      what: string,
      changes: (object: T) => readonly StoreChange[],
      gone: (object: T) => void = () => undefined,
    ) => {
      // A resync gives all of them again: only what was written since is told.
      const changed = (one: T, old: T | undefined): void => {
        if (one.metadata?.resourceVersion !== old?.metadata?.resourceVersion) tell(what, () => changes(one));
      };
      void new Informer<T>(client, kind, { changed, gone }, options).run(signal);
    };
    follow<StateObject<MeshProxySpec>>(
      MESH_PROXIES,
      'agents',
      (one) => rowsOf(one).map((row) => ({ kind: 'agent', row })),
      ({ spec }) => tell('proxy', () => [{ kind: 'gone', proxy: spec.proxy }]),
    );
    follow<StateObject<DocumentSpec>>(PROXY_UPGRADES, 'upgrade', (one) => [
      { kind: 'upgrade', upgrade: this.#upgrades.read(one) },
    ]);
    follow<StateObject<DocumentSpec>>(PROXY_ROLLOUTS, 'rollout', (one) => [
      { kind: 'rollout', rollout: this.#rollouts.read(one) },
    ]);
  }

  /** Rejects with KUBE_AWAY, with CONFIG_INVALID where a kind is not there, or with what could not be written. */
  async ping(): Promise<void> {
    const trouble = this.#agents.trouble ?? this.#ended.trouble;
    if (trouble !== undefined) throw trouble.error;
    const kinds = [MESH_PROXIES, PROXY_UPGRADES, PROXY_ROLLOUTS, RECORD_CHUNKS];
    await Promise.all(kinds.map((kind) => this.#api.ping(kind, PING_MS)));
  }

  async close(): Promise<void> {
    await Promise.all([this.#ended.close(), this.#agents.close()]);
  }

  async #listed(proxy: string | undefined): Promise<readonly StateObject<DocumentSpec & { proxy?: string }>[]> {
    if (proxy === undefined) return this.#upgrades.list();
    const all: readonly StateObject<DocumentSpec & { proxy?: string }>[] = await this.#upgrades.list(
      `${PROXY_LABEL}=${labelValue(proxy)}`,
    );
    return all.filter(({ spec }) => spec.proxy === proxy);
  }

  /** One that can not be read does not hide the others. */
  #readable<S extends { readonly id: string; readonly createdAt: number }, E extends { readonly seq: number }>(
    documents: Documents<S, E>,
    objects: readonly StateObject<DocumentSpec>[],
    limit = objects.length,
  ): { state: S; version: string }[] {
    const found: { state: S; version: string }[] = [];
    for (const object of objects) {
      if (found.length >= limit) break;
      try {
        found.push(documents.read(object));
      } catch (error) {
        if (!(error instanceof SluiceError && error.code === 'STATE_INVALID')) throw error;
        this.#log.error({ id: object.spec.id, error: error.message }, 'a part of the state can not be read');
      }
    }
    return found;
  }
}

function targetText({ to }: UpgradeTarget): string {
  return to;
}

function fenced(fence: number | undefined): { readonly fence?: number } {
  return fence === undefined ? {} : { fence };
}

function rolloutColumns({ phase, reason, spec, members }: RolloutState) {
  const count = (...states: readonly string[]): number => members.filter(({ state }) => states.includes(state)).length;
  return {
    phase,
    reason,
    target: targetText(spec.target),
    total: members.length,
    updated: count('current', 'draining', 'upgraded'),
    busy: count('starting', 'draining', 'flipping'),
    failed: count('failed', 'stuck'),
  };
}

/**
 * A reset by override can cut tens of thousands of connections. Where their list would not fit, who was held last goes first: the
 * agent says it again; then the end of the list: how many there were is in the record.
 */
function fitUpgrade(state: UpgradeState): Payload {
  let payload = pack(state);
  let left = state;
  if (sizeOf(payload) > MAX_PAYLOAD_BYTES && left.verdict !== undefined) {
    left = { ...left, verdict: { ...left.verdict, held: [] } };
    payload = pack(left);
  }
  while (sizeOf(payload) > MAX_PAYLOAD_BYTES && (left.connections?.cut.length ?? 0) > 0) {
    const { connections } = left;
    if (connections === undefined) break;
    left = { ...left, connections: { ...connections, cut: connections.cut.slice(0, connections.cut.length >> 1) } };
    payload = pack(left);
  }
  return payload;
}
