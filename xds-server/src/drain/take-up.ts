import { toSluiceError } from '@sluice/contract';
import type { Log } from '../log.ts';
import type { Store, Stored } from '../store/store.ts';
import { untilThere } from './persist.ts';
import { complete, isOver, type UpgradeEvent, type UpgradeState } from './state.ts';

export interface TakeUpParts {
  readonly store: Store;
  readonly log: Log;
  /** Whether this controller is to run it and does not yet. */
  readonly wanted: (state: UpgradeState) => boolean;
  readonly run: (state: UpgradeState, version: string, seq: number) => void;
  readonly find: (id: string) => Promise<UpgradeState | undefined>;
  readonly event: (id: string, event: UpgradeEvent) => Promise<void>;
}

/** Takes up what is stored and under way: at the start, and whenever proxies become this controller's. */
export class TakeUp {
  readonly #parts: TakeUpParts;
  readonly #signal: AbortSignal;
  /** Resolved when everything is taken up that is to be: before that a drain that an agent tells of may seem to be nobody's. */
  settled: Promise<void> = Promise.resolve();

  constructor(parts: TakeUpParts, signal: AbortSignal) {
    this.#parts = parts;
    this.#signal = signal;
  }

  /** Rejects when the store can not be read. */
  start(): Promise<void> {
    const started = this.#take(() => this.#parts.store.upgrades());
    this.settled = started.catch(() => undefined);
    return started;
  }

  again(): Promise<void> {
    const { store, log } = this.#parts;
    this.settled = this.settled
      .then(() => untilThere(() => this.#take(() => store.upgrades()), log, this.#signal))
      .catch((thrown) => log.error({ err: toSluiceError(thrown) }, 'upgrades could not be taken up'));
    return this.settled;
  }

  /** What was told of it may be older than what is stored. */
  one(id: string): Promise<void> {
    const { store, log } = this.#parts;
    const read = async () => {
      const stored = await store.upgrade(id);
      return stored === undefined ? [] : [stored];
    };
    return untilThere(() => this.#take(read), log, this.#signal);
  }

  async #take(read: () => Promise<readonly Stored[]>): Promise<void> {
    const { store, wanted, run, event } = this.#parts;
    const taken: UpgradeState[] = [];
    for (const { state, version } of (await read()).slice().reverse()) {
      if (isOver(state) || !wanted(state)) continue;
      const seq = (await store.record(state.id)).length;
      if (!wanted(state)) continue;
      run(complete(state), version, seq);
      taken.push(state);
    }
    for (const state of taken) {
      await this.#rollback(state);
      await event(state.id, { type: 'resumed' });
    }
  }

  /** A rollback concerns two upgrades, which are stored one after the other: what was between them is made good. */
  async #rollback({ id, rollbackOf, rollbackId }: UpgradeState): Promise<void> {
    const { find, event } = this.#parts;
    if (rollbackOf !== undefined) await event(rollbackOf, { type: 'rollback', rollbackId: id });
    const back = rollbackId === undefined ? undefined : await find(rollbackId);
    if (back?.epoch !== undefined) await event(id, { type: 'rollbackServing' });
  }
}
