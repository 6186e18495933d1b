import type { Connection } from './connections.ts';
import type { MethodName, MethodWish } from './methods.ts';
import type { DrainOrder } from './order.ts';
import type { PlanNote } from './plan.ts';
import type { DrainPolicy } from './policy.ts';
import type { EndedConnection } from './record.ts';
import type { HeldConnection, Verdict } from './verdict.ts';

/**
 * Messages between agent and controller: JSON, one object a line, both ways, over one HTTP/1.1 connection that the agent
 * opens with `Upgrade: sluice/1` on the controller's API port (LINK_PATH). A line has a bound (MAX_LINE_BYTES); an unknown
 * `type` is ignored, an unknown field too, so that either side may be newer.
 */
export const LINK_PATH = '/agent';
export const LINK_PROTOCOL = 'sluice/1';
export const MAX_LINE_BYTES = 4 * 1024 * 1024;
/** Either side sends `ping` when it sent nothing for this long, and gives the link up after three times as long of silence. */
export const PING_INTERVAL_MS = 5_000;

export type EpochState = 'starting' | 'serving' | 'draining' | 'ended' | 'crashed';

/** One epoch as its agent sees it. */
export interface EpochStatus {
  readonly epoch: number;
  readonly slot: string;
  readonly state: EpochState;
  /** Envoy version, such as `1.38.3`. */
  readonly version: string;
  /** Paths of its binary and of the user's bootstrap: what a rollback starts again. */
  readonly binary?: string;
  readonly bootstrap?: string;
  readonly pid: number;
  readonly startedAt: number;
  /** Set from the moment that its listeners are drained. */
  readonly drainingSince?: number;
  readonly upgradeId?: string;
  /** How it took over from the epoch before it. */
  readonly method?: MethodName;
  readonly verdict?: Verdict;
  /** Version of the newest order that it was given; the next one has to be larger. */
  readonly orderVersion?: number;
}

/** What an upgrade is to become. `to`: a version that the agent can resolve, or the path of an Envoy binary. */
export interface UpgradeTarget {
  readonly to: string;
  /** Path of another bootstrap; the running one's when absent. */
  readonly bootstrap?: string;
  /** How to hand over; `auto` when absent. */
  readonly method?: MethodWish;
}

export interface CheckResult {
  readonly name: string;
  readonly ok: boolean;
  /** What was found. */
  readonly found: string;
  /** Set when not ok: code of the catalogue and what to do. */
  readonly code?: string;
  readonly hint?: string;
}

/** Somebody's word to end an old epoch with protected connections on it. */
export interface Override {
  readonly by: string;
  readonly reason: string;
  readonly at: number;
}

/** Bound of an override's name and of its reason, in characters: the same wherever it is given. */
export const MAX_OVERRIDE_TEXT = 4_096;

/** A connection that a reset ended, with what was on it and whose word gave it up. */
export interface CutConnection extends Connection {
  readonly reason?: HeldConnection['reason'];
  readonly rule?: string;
  readonly released?: HeldConnection['released'];
}

export interface Hello {
  readonly type: 'hello';
  readonly v: number;
  readonly proxy: string;
  readonly slot: string;
  readonly agentVersion: string;
  /** Who the agent is: a bearer token, later also a certificate's name. */
  readonly identity: { readonly token?: string };
  readonly epochs: readonly EpochStatus[];
  /** Envoy versions that this agent can resolve without a path. */
  readonly versions: readonly string[];
  readonly memory?: { readonly agentRss: number };
  /** Where it is and what it is for, such as `zone`: rollouts select and spread by them. */
  readonly labels?: Readonly<Record<string, string>>;
}

export type AgentMessage =
  | Hello
  | { readonly type: 'ping' }
  /** The set of epochs changed, or one changed its state. Whole list each time. */
  | { readonly type: 'epochs'; readonly epochs: readonly EpochStatus[] }
  | {
      readonly type: 'preflight';
      readonly upgradeId: string;
      readonly ok: boolean;
      readonly checks: readonly CheckResult[];
      readonly from?: string;
      readonly to?: string;
    }
  /** The new epoch accepts and the old one does not any more. */
  | {
      readonly type: 'serving';
      readonly upgradeId: string;
      readonly epoch: number;
      readonly oldEpoch: number;
      /** Set where the old epoch is the agent's of the other slot, which it took over from by itself. */
      readonly oldSlot?: string;
      readonly from: string;
      readonly to: string;
      readonly at: number;
      readonly method: string;
    }
  /** The upgrade can not go on; `servingEpoch` is the epoch that serves now. */
  | {
      readonly type: 'failed';
      readonly upgradeId: string;
      readonly code: string;
      readonly message: string;
      readonly servingEpoch: number;
      readonly rolledBack: boolean;
    }
  /** The order reached the agent through the old epoch's filter (or over this link when the filter is away). */
  | {
      readonly type: 'orderApplied';
      readonly upgradeId: string;
      readonly epoch: number;
      readonly version: number;
      readonly via: 'xds' | 'link' | 'local';
      readonly at: number;
    }
  /** Sent when the verdict changes, and at most every second while it only counts down. */
  | { readonly type: 'verdict'; readonly upgradeId: string; readonly epoch: number; readonly verdict: Verdict }
  | {
      readonly type: 'reset';
      readonly upgradeId: string;
      readonly epoch: number;
      readonly at: number;
      readonly drained: number;
      readonly cut: readonly CutConnection[];
      readonly old: number;
      /** Why it ended before its verdict was safe, where the agent decided that by itself. */
      readonly why?: string;
      /** Whose word ended it although protected connections were left; also one that was given at the agent's own socket. */
      readonly override?: Override;
    }
  /** Connections of an old epoch that ended, as they do; `dropped`: so many more that were not kept one by one. */
  | {
      readonly type: 'ended';
      readonly upgradeId: string;
      readonly epoch: number;
      readonly items: readonly EndedConnection[];
      readonly dropped: number;
    }
  | { readonly type: 'crashed'; readonly epoch: number; readonly at: number; readonly relaunchedAs?: number }
  | {
      readonly type: 'connections';
      readonly requestId: string;
      readonly connections: readonly Connection[];
      readonly truncated: boolean;
      readonly error?: string;
    }
  | {
      readonly type: 'checked';
      readonly requestId: string;
      readonly ok: boolean;
      readonly checks: readonly CheckResult[];
      /** What two live epochs would mean for this proxy. */
      readonly notes?: readonly PlanNote[];
    }
  /** The agent wants an upgrade (SIGHUP, changed bootstrap or certificate): the controller makes one. */
  | { readonly type: 'propose'; readonly target: UpgradeTarget; readonly reason: string };

export type ControllerMessage =
  | { readonly type: 'welcome'; readonly v: number }
  | { readonly type: 'refused'; readonly code: string; readonly message: string }
  /**
   * This proxy belongs to another controller, whose API address it is: instead of `welcome`, or at any time after it. The link ends.
   * An agent that is too old to know it tries again, which leads elsewhere where the address is that of several controllers.
   */
  | { readonly type: 'moved'; readonly url: string }
  | { readonly type: 'ping' }
  /** `policy`: what the serving epoch must be able to do; the agent's own when absent. */
  | {
      readonly type: 'preflight';
      readonly upgradeId: string;
      readonly target: UpgradeTarget;
      readonly policy?: DrainPolicy;
    }
  | { readonly type: 'start'; readonly upgradeId: string; readonly target: UpgradeTarget; readonly policy: DrainPolicy }
  /** The same order as the ECDS resource; applied only if it has not come by xDS within a second. */
  | { readonly type: 'drain'; readonly order: DrainOrder }
  /** `override`: reset although protected connections are left; recorded with its reason. */
  | {
      readonly type: 'reset';
      readonly upgradeId: string;
      readonly epoch: number;
      readonly override?: { readonly by: string; readonly reason: string };
    }
  | { readonly type: 'abort'; readonly upgradeId: string }
  | { readonly type: 'connections'; readonly requestId: string; readonly epoch?: number; readonly limit: number }
  /** `policy`: what the notes of the answer are told for; the agent's own when absent. */
  | {
      readonly type: 'check';
      readonly requestId: string;
      readonly target: UpgradeTarget;
      readonly policy?: DrainPolicy;
    }
  /** The proxy ACKed a listener change: look for listen sockets to keep now. */
  | { readonly type: 'listenersChanged'; readonly epoch: number };
