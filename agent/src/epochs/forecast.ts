import { existsSync, readFileSync } from 'node:fs';
import {
  type Connection,
  type DrainPolicy,
  type EndEstimate,
  type EndedConnection,
  type Estimate,
  estimateEnds,
  fade,
  type HeldConnection,
  type Lifetimes,
  mergeLifetimes,
  NO_LIFETIMES,
  type Open,
  observeEnd,
} from '@sluice/contract';
import { writeAtomically } from './folder.ts';
import { lifeOf } from './ledger.ts';

/** When the connections of one drain will have ended, by what this and earlier drains of the proxy saw. */
export class Forecast {
  readonly #file: string;
  readonly #policy: () => DrainPolicy;
  readonly #envoy: string | undefined;
  /** What this drain saw, and that with what those before saw. */
  #own = NO_LIFETIMES;
  #lifetimes: Lifetimes;
  /** What was said first of each one that is open. */
  #first = new Map<string, EndEstimate>();

  /** `file`: what earlier drains saw; written by `save`. `envoy`: version of the Envoy that drains. */
  constructor(file: string, policy: () => DrainPolicy, envoy?: string) {
    this.#envoy = envoy;
    this.#file = file;
    this.#policy = policy;
    this.#lifetimes = fade(read(file));
  }

  ended(items: readonly EndedConnection[]): void {
    for (const { connection, at, how } of items) {
      this.#first.delete(connection.id);
      // Those that we ended say nothing of how long they would have lasted.
      if (how !== 'left') continue;
      const { kind, forMs, waits } = lifeOf(connection, this.#policy(), at, this.#envoy);
      if (waits) continue;
      this.#own = observeEnd(this.#own, kind, forMs);
      this.#lifetimes = observeEnd(this.#lifetimes, kind, forMs);
    }
  }

  /** What was said first of an open one's end, for the record. */
  first(id: string): EndEstimate | undefined {
    return this.#first.get(id);
  }

  /** The drain is taken back: what was said of it counts no more. */
  forget(): void {
    this.#first.clear();
  }

  /**
   * `untilTurnMs`: how long one that waits for its turn waits for it, about. `counts`: the order is in force, so what is
   * said first of a connection is held against it.
   */
  look(
    held: readonly HeldConnection[],
    untilTurnMs: number,
    now: number,
    counts = false,
  ): { readonly estimate: Estimate; readonly ends: (one: HeldConnection) => HeldConnection } {
    const open = held.map((one) => this.#open(one.connection, one.until, untilTurnMs, now));
    const { each, all, observed } = estimateEnds(open, this.#lifetimes);
    const byId = new Map(held.map((one, n) => [one.connection.id, each[n]]));
    for (const [id, remaining = {}] of counts ? byId : []) {
      if (!this.#first.has(id)) this.#first.set(id, { at: now, ...at(remaining, now) });
    }
    return {
      estimate: { at: now, observed, ...at(all, now) },
      ends: (one) => ({ ...one, ...at(byId.get(one.connection.id) ?? {}, now) }),
    };
  }

  /** Another drain of the proxy may have saved meanwhile: what this one saw goes beside that. */
  save(): void {
    const all = mergeLifetimes(fade(read(this.#file)), this.#own);
    writeAtomically(this.#file, `${JSON.stringify(all)}\n`);
  }

  #open(connection: Connection, until: number | undefined, untilTurnMs: number, now: number): Open {
    const { kind, forMs, waits } = lifeOf(connection, this.#policy(), now, this.#envoy);
    return {
      kind,
      forMs,
      ...(waits && { startsInMs: untilTurnMs }),
      ...(until !== undefined && { atMostMs: Math.max(0, until - now) }),
    };
  }
}

function at({ likely, late }: { likely?: number; late?: number }, now: number): { endsAt?: number; endsLate?: number } {
  return { ...(likely !== undefined && { endsAt: now + likely }), ...(late !== undefined && { endsLate: now + late }) };
}

function read(file: string): Lifetimes {
  try {
    if (!existsSync(file)) return NO_LIFETIMES;
    const found = JSON.parse(readFileSync(file, 'utf8')) as Partial<Lifetimes>;
    return typeof found.ended === 'object' && found.ended !== null ? { ended: found.ended } : NO_LIFETIMES;
  } catch {
    // A torn file: earlier drains are forgotten, nothing else.
    return NO_LIFETIMES;
  }
}
