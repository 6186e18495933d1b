import {
  connectionKey,
  type EndedConnection,
  isRolloutOver,
  isTerminal,
  MAX_ENDED,
  type RecordEntry,
  type RolloutEntry,
  SluiceError,
} from '@sluice/contract';
import type { UpgradeState } from '../drain/state.ts';
import type { RolloutState } from '../rollout/state.ts';
import type { AgentRow, Ended, Store, StoreChange, Stored, StoredRollout } from './store.ts';

/** A store for tests and for a controller that need not survive. */
export class MemoryStore implements Store {
  readonly #agents = new Map<string, string>();
  readonly #upgrades = new Map<string, { text: string; version: number }>();
  readonly #records = new Map<string, RecordEntry[]>();
  readonly #ended = new Map<string, { items: Map<string, string>; dropped: number }>();
  readonly #rollouts = new Map<string, { text: string; version: number; record: readonly RolloutEntry[] }>();
  readonly #watching = new Set<(change: StoreChange) => void>();

  async agents(): Promise<readonly AgentRow[]> {
    return [...this.#agents.values()].map((text) => JSON.parse(text) as AgentRow);
  }

  async putAgent(row: AgentRow): Promise<void> {
    this.#agents.set(JSON.stringify([row.proxy, row.slot]), JSON.stringify(row));
    this.#tell({ kind: 'agent', row });
  }

  async upgrades(filter: { readonly proxy?: string; readonly limit?: number } = {}): Promise<readonly Stored[]> {
    const all = [...this.#upgrades.values()]
      .map((row) => this.#stored(row))
      .filter((one) => filter.proxy === undefined || one.state.proxy === filter.proxy)
      .sort((a, b) => b.state.createdAt - a.state.createdAt || (a.state.id < b.state.id ? 1 : -1));
    return all.slice(0, filter.limit ?? all.length);
  }

  async upgrade(id: string): Promise<Stored | undefined> {
    const row = this.#upgrades.get(id);
    return row === undefined ? undefined : this.#stored(row);
  }

  async insertUpgrade(state: UpgradeState, entries: readonly RecordEntry[]): Promise<Stored> {
    if (this.#upgrades.has(state.id)) throw new SluiceError('UPGRADE_CONFLICT', `upgrade ${state.id} exists already`);
    return this.#write(state, 1, entries);
  }

  async updateUpgrade(state: UpgradeState, expected: string, entries: readonly RecordEntry[]): Promise<Stored> {
    const row = this.#upgrades.get(state.id);
    if (row === undefined || String(row.version) !== expected) {
      const found = row === undefined ? 'none' : row.version;
      throw new SluiceError('UPGRADE_CONFLICT', `upgrade ${state.id}: expected version ${expected}, found ${found}`);
    }
    return this.#write(state, row.version + 1, entries);
  }

  async prune(proxy: string, keep: number): Promise<void> {
    const ended = (await this.upgrades({ proxy })).filter((one) => isTerminal(one.state.phase));
    for (const { state } of ended.slice(keep)) {
      this.#upgrades.delete(state.id);
      this.#records.delete(state.id);
      this.#ended.delete(state.id);
    }
  }

  async appendEnded(upgradeId: string, items: readonly EndedConnection[], dropped: number): Promise<void> {
    if (!this.#upgrades.has(upgradeId)) throw new SluiceError('INTERNAL', `no upgrade ${upgradeId} to keep ends of`);
    const kept = this.#ended.get(upgradeId) ?? { items: new Map<string, string>(), dropped: 0 };
    for (const one of items) kept.items.set(connectionKey(one.connection), JSON.stringify(one));
    this.#ended.set(upgradeId, { items: kept.items, dropped: Math.max(kept.dropped, dropped) });
  }

  async ended(upgradeId: string): Promise<Ended> {
    const { items, dropped } = this.#ended.get(upgradeId) ?? { items: new Map<string, string>(), dropped: 0 };
    const all = [...items.values()].map((text) => JSON.parse(text) as EndedConnection);
    const byTime = all.sort((a, b) => a.at - b.at || (a.connection.id < b.connection.id ? -1 : 1));
    return { items: byTime.slice(0, MAX_ENDED), dropped };
  }

  async record(upgradeId: string): Promise<readonly RecordEntry[]> {
    return [...(this.#records.get(upgradeId) ?? [])];
  }

  async rollouts(): Promise<readonly StoredRollout[]> {
    const all = [...this.#rollouts.values()].map(storedRollout);
    return all.sort((a, b) => b.state.createdAt - a.state.createdAt || (a.state.id < b.state.id ? 1 : -1));
  }

  async rollout(id: string): Promise<StoredRollout | undefined> {
    const row = this.#rollouts.get(id);
    return row === undefined ? undefined : storedRollout(row);
  }

  async insertRollout(state: RolloutState, entries: readonly RolloutEntry[]): Promise<StoredRollout> {
    if (this.#rollouts.has(state.id)) throw new SluiceError('ROLLOUT_CONFLICT', `rollout ${state.id} exists already`);
    const row = { text: JSON.stringify(state), version: 1, record: [...entries] };
    this.#rollouts.set(state.id, row);
    this.#tell({ kind: 'rollout', rollout: storedRollout(row) });
    return storedRollout(row);
  }

  async updateRollout(state: RolloutState, expected: string, entries: readonly RolloutEntry[]): Promise<StoredRollout> {
    const old = this.#rollouts.get(state.id);
    if (old === undefined || String(old.version) !== expected) {
      const found = old === undefined ? 'none' : old.version;
      throw new SluiceError('ROLLOUT_CONFLICT', `rollout ${state.id}: expected version ${expected}, found ${found}`);
    }
    const row = { text: JSON.stringify(state), version: old.version + 1, record: [...old.record, ...entries] };
    this.#rollouts.set(state.id, row);
    this.#tell({ kind: 'rollout', rollout: storedRollout(row) });
    return storedRollout(row);
  }

  async pruneRollouts(keep: number): Promise<void> {
    const ended = (await this.rollouts()).filter((one) => isRolloutOver(one.state.phase));
    for (const { state } of ended.slice(keep)) this.#rollouts.delete(state.id);
  }

  async rolloutRecord(rolloutId: string): Promise<readonly RolloutEntry[]> {
    return [...(this.#rollouts.get(rolloutId)?.record ?? [])];
  }

  watch(onChange: (change: StoreChange) => void, signal: AbortSignal): void {
    this.#watching.add(onChange);
    signal.addEventListener('abort', () => this.#watching.delete(onChange), { once: true });
  }

  async ping(): Promise<void> {}
  async close(): Promise<void> {}

  #write(state: UpgradeState, version: number, entries: readonly RecordEntry[]): Stored {
    const row = { text: JSON.stringify(state), version };
    this.#upgrades.set(state.id, row);
    this.#records.set(state.id, [...(this.#records.get(state.id) ?? []), ...entries]);
    this.#tell({ kind: 'upgrade', upgrade: this.#stored(row) });
    return this.#stored(row);
  }

  /** Later, as from another machine. */
  #tell(change: StoreChange): void {
    for (const onChange of this.#watching) setImmediate(() => this.#watching.has(onChange) && onChange(change));
  }

  #stored(row: { text: string; version: number }): Stored {
    return { state: JSON.parse(row.text) as UpgradeState, version: String(row.version) };
  }
}

function storedRollout(row: { text: string; version: number }): StoredRollout {
  return { state: JSON.parse(row.text) as RolloutState, version: String(row.version) };
}
