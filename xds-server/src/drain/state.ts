import { randomBytes } from 'node:crypto';
import {
  type CheckResult,
  type CutConnection,
  completePolicy,
  type DrainLimit,
  type DrainOrder,
  type DrainPolicy,
  type EpochStatus,
  type Estimate,
  isTerminal,
  type Override,
  type Phase,
  type UpgradeTarget,
  type Verdict,
} from '@sluice/contract';

/** What is asked for when an upgrade is made. */
export interface UpgradeWish {
  /** Of one whose order may come twice. */
  readonly id?: string | undefined;
  readonly proxy: string;
  readonly target: UpgradeTarget;
  readonly policy: DrainPolicy;
  readonly slot?: string | undefined;
  readonly rollbackOf?: string | undefined;
  readonly reason?: string | undefined;
}

/** One upgrade as it is stored: plain data, JSON. Times are epoch milliseconds of the controller's clock. */
export interface UpgradeState {
  readonly id: string;
  readonly proxy: string;
  /** Of a Pod's proxy: the uid of that Pod. One of the same name, made anew, has another one, and its own epochs. */
  readonly podUid?: string;
  readonly target: UpgradeTarget;
  readonly policy: DrainPolicy;
  readonly createdAt: number;
  readonly phase: Phase;
  readonly phaseSince: number;
  /** Slot of the agent that starts the new epoch; set with the first command, or by the one who asked. */
  readonly slot?: string;
  /** Slot of the agent that holds the old epoch. */
  readonly oldSlot?: string;
  /** Why the phase is what it is, for a person. */
  readonly reason: string;
  /** What the serving epoch was started from, for a rollback. */
  readonly fromTarget?: UpgradeTarget;
  readonly from?: string;
  readonly to?: string;
  readonly method?: string;
  readonly epoch?: number;
  readonly oldEpoch?: number;
  readonly checks?: readonly CheckResult[];
  readonly order?: DrainOrder;
  readonly orderAckedAt?: number;
  readonly orderNack?: string;
  readonly orderAppliedAt?: number;
  readonly orderVia?: string;
  readonly verdict?: Verdict;
  /** The first word on when the drain would be over, for the record. */
  readonly firstEstimate?: Estimate;
  readonly safeToResetAt?: number;
  /** Limits of policy that it has reached: each is said once. */
  readonly limitsRecorded?: readonly DrainLimit[];
  readonly override?: Override;
  readonly authorisedAt?: number;
  readonly resetAt?: number;
  readonly connections?: {
    readonly old: number;
    readonly drained: number;
    readonly cut: readonly CutConnection[];
    readonly why?: string;
  };
  /** Asked of the agent because of a user's wish or a bound; the agent's answer ends the upgrade. */
  readonly abort?: { readonly at: number; readonly code: string; readonly message: string };
  readonly failure?: { readonly code: string; readonly message: string };
  readonly rollbackOf?: string;
  readonly rollbackId?: string;
  /** The upgrade that flips back has served: this one ends as RolledBack. */
  readonly rolledBack?: boolean;
  /** When the last command was sent, and how often in this phase: retries back off by it. */
  readonly sentAt?: number;
  readonly attempts: number;
}

/** What happens to an upgrade. Events may come late, twice or in another order. */
export type UpgradeEvent =
  /** It is this upgrade's turn: no older one of the proxy is before its Draining. `slot`: whom to order it from. */
  | { readonly type: 'turn'; readonly slot: string; readonly fromTarget?: UpgradeTarget }
  /** An agent sent its whole list; `hello`: it is the first of a new link, so messages may have been lost before it. */
  | { readonly type: 'epochs'; readonly slot: string; readonly epochs: readonly EpochStatus[]; readonly hello: boolean }
  | {
      readonly type: 'preflight';
      readonly ok: boolean;
      readonly checks: readonly CheckResult[];
      readonly from?: string;
      readonly to?: string;
    }
  | {
      readonly type: 'serving';
      readonly epoch: number;
      readonly oldEpoch: number;
      readonly oldSlot?: string;
      readonly from: string;
      readonly to: string;
      readonly at: number;
      readonly method: string;
    }
  | { readonly type: 'failed'; readonly code: string; readonly message: string; readonly rolledBack: boolean }
  | { readonly type: 'orderAcked'; readonly version: number }
  | { readonly type: 'orderNacked'; readonly version: number; readonly error: string }
  | { readonly type: 'orderApplied'; readonly epoch: number; readonly version: number; readonly via: string }
  | { readonly type: 'verdict'; readonly epoch: number; readonly verdict: Verdict }
  | {
      readonly type: 'resetDone';
      readonly epoch: number;
      readonly at: number;
      readonly old: number;
      readonly drained: number;
      readonly cut: readonly CutConnection[];
      readonly why?: string;
      readonly override?: Override;
    }
  /** Another share of the fleet's rate. */
  | { readonly type: 'share'; readonly perSecond: number }
  /** The whole Pod of the proxy is gone. */
  | { readonly type: 'gone'; readonly why: string }
  | { readonly type: 'abort'; readonly by: string }
  | { readonly type: 'override'; readonly by: string; readonly reason: string }
  | { readonly type: 'rollback'; readonly rollbackId: string }
  | { readonly type: 'rollbackServing' }
  /** The controller started: orders are given again for what is under way. */
  | { readonly type: 'resumed' }
  | { readonly type: 'tick' };

export type Command =
  | { readonly type: 'sendPreflight'; readonly slot: string }
  | { readonly type: 'sendStart'; readonly slot: string }
  | { readonly type: 'sendAbort'; readonly slot: string }
  /** Serve the order to the old epoch by xDS, and over its agent's link as well. */
  | { readonly type: 'pushOrder'; readonly slot: string | undefined; readonly order: DrainOrder }
  | { readonly type: 'withdrawOrder'; readonly epoch: number }
  | {
      readonly type: 'authorizeReset';
      readonly slot: string | undefined;
      readonly epoch: number;
      readonly override?: { readonly by: string; readonly reason: string };
    };

/** Who can be spoken to while an event is handled. */
export interface Surroundings {
  readonly now: number;
  /** Slots of this proxy whose agents are connected. */
  readonly connected: ReadonlySet<string>;
  /** Slot of the agent that holds an epoch, as last heard. */
  readonly slotOf: (epoch: number) => string | undefined;
  /** Its part of the fleet's rate, where others drain too; undefined: it has the whole of it, or policy shares none. */
  readonly share?: () => number | undefined;
}

export interface Entry {
  readonly phase: Phase;
  readonly event: string;
  readonly text: string;
}

export interface Step {
  readonly state: UpgradeState;
  readonly commands: readonly Command[];
  readonly entries: readonly Entry[];
}

/** Bounds of the phases in milliseconds; every one counts from the start of its phase. */
export interface Bounds {
  readonly idle: number;
  readonly preflight: number;
  readonly starting: number;
  /** From asking the agent to give up until its answer is no longer waited for. */
  readonly abort: number;
  /** First retry of an unanswered command; doubles up to `retryMax`. */
  readonly retry: number;
  readonly retryMax: number;
}

export const DEFAULT_BOUNDS: Bounds = {
  idle: 600_000,
  preflight: 60_000,
  // Longer than the agent's own bound, whose error says more.
  starting: 150_000,
  abort: 30_000,
  retry: 5_000,
  retryMax: 60_000,
};

/** A state as an older version of us stored it, which did not tell one limit from the other. */
export function complete(stored: UpgradeState & { readonly deadlineRecorded?: boolean }): UpgradeState {
  const { deadlineRecorded, ...state } = stored;
  const limits: readonly DrainLimit[] = ['time', 'memory'];
  return {
    ...state,
    policy: completePolicy(state.policy),
    ...(deadlineRecorded === true ? { limitsRecorded: limits } : {}),
  };
}

/** Nothing is left to do: also no old epoch that still drains although the upgrade is Failed or RolledBack. */
export function isOver({ phase, oldEpoch, resetAt }: UpgradeState): boolean {
  return isTerminal(phase) && (phase === 'Done' || oldEpoch === undefined || resetAt !== undefined);
}

export function newId(now: number): string {
  return `${now.toString(36)}-${randomBytes(4).toString('hex')}`;
}

export function newUpgrade(wish: UpgradeWish, id: string, now: number): UpgradeState {
  return {
    id,
    proxy: wish.proxy,
    target: wish.target,
    policy: wish.policy,
    createdAt: now,
    phase: 'Idle',
    phaseSince: now,
    reason: wish.reason ?? 'waits for its turn',
    attempts: 0,
    ...(wish.slot === undefined ? {} : { slot: wish.slot }),
    ...(wish.rollbackOf === undefined ? {} : { rollbackOf: wish.rollbackOf }),
  };
}
