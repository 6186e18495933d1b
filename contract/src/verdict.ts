import type { Connection } from './connections.ts';

/** What a connection is waited for, or what is left of it. */
export type HoldReason =
  | 'streams-finishing'
  | 'request-in-flight'
  | 'silent-idle-grace'
  | 'may-hold-a-request'
  | 'upgrade'
  | 'tcp'
  | 'told-to-leave'
  | 'waits-its-turn'
  | 'not-told'
  /** Nothing is known of what makes a connection of this Envoy leave (levers.ts). */
  | 'no-lever'
  | 'unseen';

/** Why one that would be waited for is not. */
export type ReleasedBy = 'policy' | 'protection-over' | 'deadline' | 'memory';

export interface HeldConnection {
  readonly connection: Connection;
  readonly protected: boolean;
  readonly reason: HoldReason;
  /** A request or a session is on it, or may be: ending it now would cut it. */
  readonly holds: boolean;
  /** Name of the policy's rule that holds it, `default` where none matched. */
  readonly rule: string;
  readonly released?: ReleasedBy;
  /** When the protection ends by itself, if it does. Epoch milliseconds. */
  readonly until?: number;
  /** When it will have ended, as likely as not, and in nine of ten cases. Epoch milliseconds. */
  readonly endsAt?: number;
  readonly endsLate?: number;
}

export type WitnessName = 'filter' | 'admin' | 'kernel';

/** What a witness says of the old epoch's open downstream connections, as of `at` (epoch ms). */
export interface Witness {
  readonly name: WitnessName;
  /** undefined: the witness can not be heard, and `why` says so. */
  readonly open?: number;
  readonly at: number;
  readonly why?: string;
}

/** When the whole drain will be over. Epoch milliseconds. */
export interface Estimate {
  readonly at: number;
  /** As likely as not; in nine of ten cases. Absent where it may never end. */
  readonly endsAt?: number;
  readonly endsLate?: number;
  /** Ends of connections that it stands on; 0 = nothing was observed yet, so ages alone speak. */
  readonly observed: number;
}

/** How far the telling has come. */
export interface PacingProgress {
  readonly told: number;
  readonly left: number;
  /** The rate in force; 0 = all at once. */
  readonly perSecond: number;
  /** Why nobody is told. */
  readonly none?: string;
  /** Why the rate is below what policy allows. */
  readonly strain?: string;
  /** Connections older than this have been told to leave, milliseconds; absent where they are chosen one by one. */
  readonly cutoffAgeMs?: number;
}

/** What an epoch that lingers costs. */
export interface EpochCost {
  readonly at: number;
  /** Resident memory, and the part of it that would be free without this epoch (private pages). Bytes. */
  readonly residentBytes: number;
  readonly privateBytes: number;
}

/** A limit of policy that a drain can be over. */
export type DrainLimit = 'time' | 'memory';

export interface Verdict {
  readonly safe: boolean;
  /** In one line, for a person. */
  readonly summary: string;
  readonly at: number;
  readonly total: number;
  readonly protected: number;
  /** Bounded (MAX_HELD), protected ones first; `total` and `protected` count all. */
  readonly held: readonly HeldConnection[];
  /** How many hold a request or a session: what a reset now would cut. */
  readonly holding: number;
  readonly witnesses: readonly Witness[];
  /** The witnesses that can be heard do not agree. */
  readonly disagreement?: string;
  /** The drain is past its deadline, or over its memory budget. */
  readonly pastDeadline: boolean;
  readonly limit?: DrainLimit;
  /** Over its memory budget, also where `limit` is the deadline, which was first. */
  readonly overBudget?: boolean;
  readonly estimate?: Estimate;
  readonly pacing?: PacingProgress;
  readonly cost?: EpochCost;
}

export const MAX_HELD = 200;
