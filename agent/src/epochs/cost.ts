import { readFileSync } from 'node:fs';
import type { EpochCost } from '@sluice/contract';

/**
 * What a process costs in memory. Private pages are what would be free without it: two epochs of one binary share its
 * text. undefined when the process is gone or may not be looked at.
 */
export function costOf(pid: number, at: number): EpochCost | undefined {
  try {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
    const kiB = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(rollup)?.[1] ?? 0);
    return {
      at,
      residentBytes: kiB('Rss') * 1024,
      privateBytes: (kiB('Private_Clean') + kiB('Private_Dirty')) * 1024,
    };
  } catch {
    return undefined;
  }
}

export const LINGERS_MS = 3_000;

export interface Lingering {
  /** Larger ones are younger, also of two slots (handoff/reserve.ts). */
  readonly epoch: number;
  readonly privateBytes: number;
  /** How many of its connections hold a request or a session. */
  readonly holding: number;
  /** Its order is so old (LINGERS_MS) that what could leave at once has left: before that nobody lingers. */
  readonly lingers: boolean;
  /** Policy's budget, 0 = none. */
  readonly budgetMiB: number;
}

/**
 * Which of `own` to give up, so that all fit into the budget: those first on which the fewest hold something, and of
 * two alike the one that has lingered longer. An epoch whose policy has no budget is never given up, but counts; so does
 * one whose drain has only begun, for the requests of its first moments end by themselves.
 *
 * `others` are those of the other slot, whose agent decides in the same way and gives up its own. How many hold something
 * changes from one moment to the next, so each of two could find its own the cheapest, and both would go: with others the
 * oldest goes first, which both see alike.
 */
export function overBudget(own: readonly Lingering[], others: readonly Lingering[] = []): number[] {
  const all = [...own, ...others];
  let total = all.reduce((sum, one) => sum + one.privateBytes, 0);
  const given: number[] = [];
  const byAge = (a: Lingering, b: Lingering) => a.epoch - b.epoch;
  const byWorth = (a: Lingering, b: Lingering) => a.holding - b.holding || byAge(a, b);
  const candidates = all.filter((one) => one.budgetMiB > 0 && one.lingers).sort(others.length === 0 ? byWorth : byAge);
  for (const one of candidates) {
    if (total <= one.budgetMiB * 1024 * 1024) continue;
    if (own.includes(one)) given.push(one.epoch);
    total -= one.privateBytes;
  }
  return given;
}
