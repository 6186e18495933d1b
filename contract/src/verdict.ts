import type { Connection } from './connections.ts';

/** Why a connection is protected, or why it is not. */
export type HoldReason =
  | 'streams-finishing'
  | 'request-in-flight'
  | 'silent-idle-grace'
  | 'may-hold-a-request'
  | 'upgrade'
  | 'tcp'
  | 'told-to-leave'
  | 'unseen';

export interface HeldConnection {
  readonly connection: Connection;
  readonly protected: boolean;
  readonly reason: HoldReason;
  /** When the protection ends by itself, if it does. Epoch milliseconds. */
  readonly until?: number;
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

export interface Verdict {
  readonly safe: boolean;
  /** In one line, for a person. */
  readonly summary: string;
  readonly at: number;
  readonly total: number;
  readonly protected: number;
  /** Bounded (MAX_HELD), protected ones first; `total` and `protected` count all. */
  readonly held: readonly HeldConnection[];
  readonly witnesses: readonly Witness[];
  /** The witnesses that can be heard do not agree. */
  readonly disagreement?: string;
  /** The drain is past its deadline. */
  readonly pastDeadline: boolean;
}

export const MAX_HELD = 200;
