import { Conditions } from '../conditions.ts';

/** Counts of one client, in slices of SLICE_MS, so that a window chosen later can still be counted. */
export const SLICE_MS = 100;
const MAX_FAILURES = 200;

export interface Failure {
  readonly id: string;
  readonly what: string;
  readonly at: number;
}

export interface Counts {
  total: number;
  failed: number;
  refusedBeforeSent: number;
}

export class Tally {
  /** Told with each request that ends. */
  readonly conditions = new Conditions();
  readonly name: string;
  /** Bounded; `failed` in the slices counts all. */
  readonly failures: Failure[] = [];
  readonly slices = new Map<number, Counts>();
  readonly answered = new Set<string>();
  readonly refused = new Set<string>();
  /** Ids of requests that failed; the upstream may have seen them or not. */
  readonly failedIds = new Set<string>();
  total = 0;
  failed = 0;
  private sequence = 0;
  private readonly now: () => number;

  constructor(name: string, now: () => number = Date.now) {
    this.name = name;
    this.now = now;
  }

  /** A new id, unique in the run; it carries its time, so that what reconciliation finds can be put into a window. */
  nextId(): string {
    return `${this.name}/${this.sequence++}/${this.now()}`;
  }

  ok(id: string): void {
    this.answered.add(id);
    this.total++;
    this.slice(this.now()).total++;
    this.conditions.changed();
  }

  fail(id: string, what: string, at = this.now()): void {
    this.failedIds.add(id);
    this.total++;
    this.failed++;
    const slice = this.slice(at);
    slice.total++;
    slice.failed++;
    this.keep({ id, what, at });
    this.conditions.changed();
  }

  /** An answer that was counted as right turned out wrong: it stays in the total and is failed now. */
  demote(id: string, what: string): void {
    const at = timeOf(id) ?? this.now();
    this.failed++;
    this.slice(at).failed++;
    this.keep({ id, what, at });
  }

  /** The client library never sent it: counted apart, not in the total. */
  refuse(id: string): void {
    this.refused.add(id);
    this.slice(this.now()).refusedBeforeSent++;
  }

  private keep(failure: Failure): void {
    if (this.failures.length < MAX_FAILURES) this.failures.push(failure);
  }

  private slice(at: number): Counts {
    const key = Math.floor(at / SLICE_MS);
    let counts = this.slices.get(key);
    if (counts === undefined) {
      counts = { total: 0, failed: 0, refusedBeforeSent: 0 };
      this.slices.set(key, counts);
    }
    return counts;
  }
}

export function timeOf(id: string): number | undefined {
  const at = Number(id.slice(id.lastIndexOf('/') + 1));
  return Number.isFinite(at) && at > 0 ? at : undefined;
}

/** Counts between two times (epoch ms), to a slice's precision; the whole of the slices that the ends lie in. */
export function countBetween(tally: Pick<Tally, 'slices'>, from = -Infinity, to = Infinity): Counts {
  const sum: Counts = { total: 0, failed: 0, refusedBeforeSent: 0 };
  for (const [key, counts] of tally.slices) {
    if ((key + 1) * SLICE_MS <= from || key * SLICE_MS > to) continue;
    sum.total += counts.total;
    sum.failed += counts.failed;
    sum.refusedBeforeSent += counts.refusedBeforeSent;
  }
  return sum;
}
