import type {
  RolloutCounts,
  RolloutEntry,
  RolloutMember,
  RolloutPause,
  RolloutPhase,
  RolloutSpec,
  RolloutVerb,
} from '@sluice/contract';

/** One rollout as it is stored: plain data, JSON. Times are epoch milliseconds of the controller's clock. */
export interface RolloutState {
  readonly id: string;
  readonly spec: RolloutSpec;
  readonly createdAt: number;
  readonly phase: RolloutPhase;
  readonly phaseSince: number;
  readonly reason: string;
  /** Index of the stage under way: the canary, then the batches. */
  readonly stage: number;
  readonly members: readonly RolloutMember[];
  readonly pause?: RolloutPause;
  /** Counts at the last resume: only what came after them is judged. */
  readonly baseline: RolloutCounts;
  /** Last word of a source of metrics. */
  readonly measured?: Measured;
  /** Why the source of metrics could not be heard when it was asked last. */
  readonly unmeasured?: string;
  /** Of the last resume: what metrics say of the time before is forgiven. */
  readonly judgedFrom?: number;
  /** Orders given so far; makes their ids, so that an order that is given twice is one. */
  readonly ordered: number;
  readonly rollbackBy?: string;
  /** Members that left in the middle of their upgrade, such as Pods that were deleted. No failures. */
  readonly left?: number;
}

/** What only a source of metrics knows; `failedRequests` are those of members since each was begun, or since the last resume. */
export interface Measured {
  /** When it was asked. */
  readonly at: number;
  readonly failedRequests?: number;
  readonly p99Ms?: number;
}

/** One proxy as its fleet sees it now. */
export interface Observed {
  readonly name: string;
  /** Tells one of the same name, made anew, from the one before. */
  readonly uid?: string;
  /** What serves, where the fleet has to be told what to flip back to. */
  readonly serving?: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Somebody can be told to do something. */
  readonly reachable: boolean;
  /** It serves. */
  readonly available: boolean;
  /** What serves is the target. */
  readonly upToDate: boolean;
  /** What became of the order that this rollout gave it last. undefined: that order has not arrived. */
  readonly step?: {
    readonly id: string;
    readonly state: 'starting' | 'serving' | 'done' | 'failed' | 'rolledBack';
    readonly reason: string;
    /** Protected connections that were cut by it. */
    readonly cut: number;
  };
}

export type RolloutEvent =
  /** Something changed, or the clock came to `wakeAt`. */
  | { readonly type: 'tick' }
  /** The controller started: what was ordered is ordered again. */
  | { readonly type: 'resumed' }
  | { readonly type: RolloutVerb; readonly by: string }
  /** A new epoch of this rollout crashed. */
  | { readonly type: 'crashed'; readonly member: string }
  | { readonly type: 'measured'; readonly measured: Measured }
  /** The source of metrics was asked and gave nothing to judge by. */
  | { readonly type: 'unmeasured'; readonly reason: string }
  /** It is wanted otherwise from now on; the target stays. One that is Done goes on where that leaves something to do. */
  | { readonly type: 'spec'; readonly spec: RolloutSpec };

/** What a fleet is asked to do. Each may be asked again and means the same then: `id` tells. */
export type RolloutAction =
  | { readonly type: 'start'; readonly member: string; readonly id: string }
  /** Give it up if it does not serve yet. */
  | { readonly type: 'abort'; readonly member: string; readonly id: string }
  /** Flip upgrade `id` back, by an upgrade whose id is `backId`. */
  | { readonly type: 'flip'; readonly member: string; readonly id: string; readonly backId: string };

export interface RolloutPlan {
  readonly state: RolloutState;
  readonly actions: readonly RolloutAction[];
  readonly entries: readonly Omit<RolloutEntry, 'rolloutId' | 'seq' | 'at'>[];
  /** When something is to be decided although nothing happens. */
  readonly wakeAt?: number;
}

/** A rollout that has not begun. */
export function newRollout(id: string, spec: RolloutSpec, now: number): RolloutState {
  return {
    id,
    spec,
    createdAt: now,
    phase: 'Progressing',
    phaseSince: now,
    reason: 'begins',
    stage: 0,
    members: [],
    baseline: { failedUpgrades: 0, crashes: 0, cutConnections: 0 },
    ordered: 0,
  };
}
