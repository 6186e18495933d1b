import { type RecordEntry, SluiceError, toSluiceError } from '@sluice/contract';
import type { Agents } from '../link/agents.ts';
import type { Log } from '../log.ts';
import type { Store, Stored } from '../store/store.ts';
import { recordOf } from './entries.ts';
import { isAway, untilThere } from './persist.ts';
import { type Entry, newId, newUpgrade, type UpgradeState, type UpgradeWish } from './state.ts';

/** Not begun, for one proxy at once. A script that proposes in a loop meets this bound. */
const MAX_WAITING = 8;

export interface InsertParts {
  readonly store: Store;
  readonly agents: Pick<Agents, 'podUid'>;
  readonly log: Log;
  readonly now: () => number;
  /** Ended upgrades kept per proxy. */
  readonly keep: number;
  readonly active: (proxy: string) => readonly UpgradeState[];
  readonly current: (id: string) => UpgradeState | undefined;
  /** It is stored: whoever is to run it runs it. */
  readonly stored: (state: UpgradeState, version: string, seq: number) => void;
  readonly announce: (state: UpgradeState, entries: readonly RecordEntry[]) => void;
  /** It may begin. */
  readonly made: (state: UpgradeState) => Promise<void>;
  readonly noticed: (stored: Stored) => Promise<void>;
}

/** Stores new upgrades, those that were asked for and those that agents began by themselves. */
export class Inserts {
  readonly #parts: InsertParts;
  readonly #signal: AbortSignal;
  readonly #under = new Set<string>();

  constructor(parts: InsertParts, signal: AbortSignal) {
    this.#parts = parts;
    this.#signal = signal;
  }

  /** It is being stored here. */
  has(id: string): boolean {
    return this.#under.has(id);
  }

  /** Rejects with UPGRADE_CONFLICT where an upgrade of `wish.id` exists. */
  async create(wish: UpgradeWish): Promise<UpgradeState> {
    const { active, now, made, current } = this.#parts;
    const waiting = active(wish.proxy).filter((state) => state.phase === 'Idle').length;
    if (waiting >= MAX_WAITING) {
      throw new SluiceError('UPGRADE_CONFLICT', `${waiting} upgrades of ${wish.proxy} wait for their turn already`);
    }
    const at = now();
    const state = newUpgrade(wish, wish.id ?? newId(at), at);
    const text = `upgrade of ${wish.proxy} to ${wish.target.to}${wish.reason === undefined ? '' : `: ${wish.reason}`}`;
    await this.insert(state, { phase: 'Idle', event: 'created', text });
    await this.#prune(wish.proxy);
    await made(state);
    return current(state.id) ?? state;
  }

  /** Stores a new upgrade with the first entry of its record, and has it run from here on. */
  async insert(made: UpgradeState, first: Entry): Promise<void> {
    const { agents, store, now, stored, announce } = this.#parts;
    const podUid = agents.podUid(made.proxy);
    const state = podUid === undefined ? made : { ...made, podUid };
    const entries = recordOf(state, 0, now(), [first]);
    this.#under.add(state.id);
    try {
      const { version } = await store.insertUpgrade(state, entries);
      stored(state, version, entries.length);
    } catch (thrown) {
      if (isAway(thrown)) void this.#lookFor(state.id);
      throw thrown;
    } finally {
      this.#under.delete(state.id);
    }
    announce(state, entries);
  }

  /** The next one makes good what could not be removed. */
  async #prune(proxy: string): Promise<void> {
    const { store, keep, log } = this.#parts;
    await store.prune(proxy, keep).catch((thrown) => log.warn({ proxy, err: toSluiceError(thrown) }, 'not pruned'));
  }

  /** One whose insert was not answered may be stored all the same: it is not left to lie until the next start. */
  async #lookFor(id: string): Promise<void> {
    const { store, log, noticed } = this.#parts;
    try {
      const stored = await untilThere(() => store.upgrade(id), log, this.#signal);
      if (stored !== undefined) await noticed(stored);
    } catch (thrown) {
      if (!this.#signal.aborted) log.warn({ upgrade: id, err: toSluiceError(thrown) }, 'is it stored?');
    }
  }
}
