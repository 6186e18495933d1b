import type { ConnectionRecord } from './clients/crowd.ts';

/** The old connections of a drain as their clients saw them. Times in epoch ms. */
export interface Fate {
  readonly old: number;
  /** When the last old connection ended, or the last thing on one that the reset itself ended. */
  readonly trueEnd: number;
  readonly cut: number;
  /** How many old connections were still there when the process ended; without anything on them, unless counted as cut. */
  readonly leftAtReset: number;
}

/**
 * Pure. `oldPorts`: the clients' ports that the kernel showed on the old process at `seenAt`. A port may be used again, so
 * the time has to fit too. A connection that the reset ended (from `resetAt` on) was free since its last request.
 */
export function fateOf(
  records: readonly ConnectionRecord[],
  oldPorts: ReadonlySet<number>,
  seenAt: number,
  resetAt: number,
): Fate {
  const old = records.filter(
    ({ localPort, openedAt, endedAt = Infinity }) => oldPorts.has(localPort) && openedAt <= seenAt && endedAt >= seenAt,
  );
  const endedByReset = ({ endedAt = Infinity }: ConnectionRecord) => endedAt >= resetAt;
  const ends = old.map((one) => (endedByReset(one) ? (one.freeAt ?? resetAt) : (one.endedAt ?? resetAt)));
  return {
    old: old.length,
    trueEnd: Math.max(seenAt, ...ends.map((at) => Math.min(at, resetAt))),
    cut: old.filter(({ cut }) => cut).length,
    leftAtReset: old.filter(endedByReset).length,
  };
}
