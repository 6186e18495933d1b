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
  #running = 0;

  constructor(parts: TakeUpParts, signal: AbortSignal) {
    this.#parts = parts;
    this.#signal = signal;
  }

  /** It is not known yet what is under way. */
  get runs(): boolean {
    return this.#running > 0;
  }

  /** Rejects when the store can not be read. */
  start(): Promise<void> {
    const started = this.#counted(() => this.#take(() => this.#parts.store.upgrades()));
    this.settled = started.catch(() => undefined);
    return started;
  }

  again(): Promise<void> {
    const { store, log } = this.#parts;
    const before = this.settled;
    this.settled = this.#counted(() =>
      before.then(() => untilThere(() => this.#take(() => store.upgrades()), log, this.#signal)),
    ).catch((thrown) => log.error({ err: toSluiceError(thrown) }, 'upgrades could not be taken up'));
    return this.settled;
  }

  async #counted(work: () => Promise<void>): Promise<void> {
    this.#running++;
    try {
      await work();
    } finally {
      this.#running--;
    }
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
    const found: (Stored & { readonly seq: number })[] = [];
    for (const one of (await read()).slice().reverse()) {
      if (isOver(one.state) || !wanted(one.state)) continue;
      found.push({ ...one, seq: (await store.record(one.state.id)).length });
    }
    // All is read that is needed: what is tried again from the start finds nothing that was begun.
    const taken = found.filter(({ state, version, seq }) => {
      if (!wanted(state)) return false;
      run(complete(state), version, seq);
      return true;
    });
    await Promise.all(
      taken.map(async ({ state }) => {
        await this.#rollback(state);
        await event(state.id, { type: 'resumed' });
      }),
    );
  }

  /** A rollback concerns two upgrades, which are stored one after the other: what was between them is made good. */
  async #rollback({ id, rollbackOf, rollbackId }: UpgradeState): Promise<void> {
    const { find, event, log } = this.#parts;
    if (rollbackOf !== undefined) await event(rollbackOf, { type: 'rollback', rollbackId: id });
    const back = rollbackId === undefined ? undefined : await untilThere(() => find(rollbackId), log, this.#signal);
    if (back?.epoch !== undefined) await event(id, { type: 'rollbackServing' });
  }
}
