export const BACKOFF_FIRST_MS = 100;
export const BACKOFF_MAX_MS = 5_000;

/**
 * How long to wait before the next round of attempts. `round` counts from 0, `random` is in [0, 1). Between half of the
 * exponential step and the whole of it: agents that lost their controller together do not come back together.
 */
export function backoffMs(round: number, random: number, first = BACKOFF_FIRST_MS, max = BACKOFF_MAX_MS): number {
  const step = Math.min(max, first * 2 ** Math.min(round, 30));
  return Math.round(step / 2 + (step / 2) * random);
}
