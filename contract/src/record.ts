import type { Connection } from './connections.ts';
import type { LeverName } from './levers.ts';
import type { HoldReason, ReleasedBy } from './verdict.ts';

/** How a connection of an old epoch ended: by itself or its client, closed while idle, cut by us, or with its epoch. */
export type EndedHow = 'left' | 'closed-idle' | 'cut' | 'crashed';

/** The first word on when a connection would end, by the order to leave or from when it was seen. Epoch milliseconds. */
export interface EndEstimate {
  readonly at: number;
  /** As likely as not; in nine of ten cases. Absent where it might never end. */
  readonly endsAt?: number;
  readonly endsLate?: number;
  /** How much later than `endsAt` it ended; less than 0: sooner. */
  readonly lateMs?: number;
}

/** The end of one connection of an old epoch, as the record of the upgrade keeps it. */
export interface EndedConnection {
  readonly connection: Connection;
  /** Epoch milliseconds, of the agent's clock. */
  readonly at: number;
  readonly how: EndedHow;
  /** What told it to leave, or ended it. */
  readonly lever: LeverName;
  /** What it was waited for last. */
  readonly reason: HoldReason;
  /** Rule of the policy that held it; `default` where none matched. */
  readonly rule: string;
  /** Set for one that was cut: why policy did not wait on; absent where somebody's override ended it. */
  readonly released?: ReleasedBy;
  /** Absent for one that ended before anything was said of it. */
  readonly estimate?: EndEstimate;
}

/** At most so many ends are kept of one upgrade; the record says how many more there were. */
export const MAX_ENDED = 20_000;
/** So many go with one message. */
export const ENDED_BATCH = 500;

/** Ends by how, lever and protocol: complete also where the single ones are not. */
export interface EndedCount {
  readonly how: EndedHow;
  readonly lever: LeverName;
  readonly protocol: Connection['protocol'];
  readonly rule: string;
  readonly count: number;
}

export function countEnded(items: readonly EndedConnection[], before: readonly EndedCount[] = []): EndedCount[] {
  const counts = new Map<string, EndedCount>();
  const add = (one: Omit<EndedCount, 'count'>, n: number): void => {
    const key = JSON.stringify([one.how, one.lever, one.protocol, one.rule]);
    counts.set(key, { ...one, count: (counts.get(key)?.count ?? 0) + n });
  };
  for (const { count, ...one } of before) add(one, count);
  for (const { how, lever, rule, connection } of items) add({ how, lever, rule, protocol: connection.protocol }, 1);
  return [...counts.values()];
}
