import type { EndedConnection, EpochStatus, RecordEntry, RolloutEntry } from '@sluice/contract';
import type { UpgradeState } from '../drain/state.ts';
import type { RolloutState } from '../rollout/state.ts';

/** What is remembered of one agent slot of one proxy, so that a restarted controller knows whom to expect. */
export interface AgentRow {
  readonly proxy: string;
  readonly slot: string;
  readonly agentVersion: string;
  readonly versions: readonly string[];
  readonly epochs: readonly EpochStatus[];
  readonly seenAt: number;
  readonly labels?: Readonly<Record<string, string>>;
  /** Id of the replica that holds its link, where there are several; absent: none does. */
  readonly replica?: string;
}

/** What another replica wrote: the whole new state of it. An upgrade comes with its version, so that it can be taken up. */
export type StoreChange =
  | { readonly kind: 'agent'; readonly row: AgentRow }
  | { readonly kind: 'upgrade'; readonly upgrade: Stored }
  | { readonly kind: 'rollout'; readonly rollout: StoredRollout }
  /** A proxy was forgotten. */
  | { readonly kind: 'gone'; readonly proxy: string };

/** An upgrade and the version of its stored form: opaque, changes with every write. */
export interface Stored {
  readonly state: UpgradeState;
  readonly version: string;
}

export interface StoredRollout {
  readonly state: RolloutState;
  readonly version: string;
}

export interface Ended {
  readonly items: readonly EndedConnection[];
  readonly dropped: number;
}

/**
 * Where the controller keeps its state. A write has happened when its promise resolves, and outlives a SIGKILL then.
 * A second implementation passes `storeConformance`. All methods reject with a SluiceError.
 */
export interface Store {
  agents(): Promise<readonly AgentRow[]>;
  /** Replaces the row of the same proxy and slot. */
  putAgent(row: AgentRow): Promise<void>;

  /** Newest first. `limit`: at most so many. */
  upgrades(filter?: { readonly proxy?: string; readonly limit?: number }): Promise<readonly Stored[]>;
  upgrade(id: string): Promise<Stored | undefined>;
  /** Rejects with UPGRADE_CONFLICT when the id exists. */
  insertUpgrade(state: UpgradeState, entries: readonly RecordEntry[]): Promise<Stored>;
  /** Writes state and entries together; rejects with UPGRADE_CONFLICT when the stored version is another one. */
  updateUpgrade(state: UpgradeState, expected: string, entries: readonly RecordEntry[]): Promise<Stored>;
  /** Removes the oldest ended upgrades of a proxy, with their records, so that `keep` are left. */
  prune(proxy: string, keep: number): Promise<void>;
  /** Keeps how connections ended; one that is kept already is kept once. `dropped`: so many more, in all. */
  appendEnded(upgradeId: string, items: readonly EndedConnection[], dropped: number): Promise<void>;
  /** By time, MAX_ENDED at most. */
  ended(upgradeId: string): Promise<Ended>;

  /** By seq. */
  record(upgradeId: string): Promise<readonly RecordEntry[]>;

  /** Newest first. */
  rollouts(): Promise<readonly StoredRollout[]>;
  rollout(id: string): Promise<StoredRollout | undefined>;
  /** Rejects with ROLLOUT_CONFLICT when the id exists. */
  insertRollout(state: RolloutState, entries: readonly RolloutEntry[]): Promise<StoredRollout>;
  /** Writes state and entries together; rejects with ROLLOUT_CONFLICT when the stored version is another one. */
  updateRollout(state: RolloutState, expected: string, entries: readonly RolloutEntry[]): Promise<StoredRollout>;
  /** Removes the oldest ended rollouts, with their records, so that `keep` are left. */
  pruneRollouts(keep: number): Promise<void>;
  /** By seq. */
  rolloutRecord(rolloutId: string): Promise<readonly RolloutEntry[]>;

  /**
   * Tells of every write as it is seen here, also of our own, until the signal is aborted; several may be told as one, of the last.
   * Only where several controllers share the store: absent otherwise.
   */
  watch?(onChange: (change: StoreChange) => void, signal: AbortSignal): void;

  /** Removes everything of a proxy that is no more. Only where proxies come and go by themselves, as Pods do: absent otherwise. */
  forget?(proxy: string): Promise<void>;
  /** How many ended upgrades of a proxy are kept where nobody says a number. */
  readonly keep?: number;

  /** Rejects when the store can not be written: what /readyz asks. */
  ping(): Promise<void>;
  close(): Promise<void>;
}
