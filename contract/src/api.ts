import type { Connection } from './connections.ts';
import type { CheckResult, CutConnection, EpochStatus, Override, UpgradeTarget } from './messages.ts';
import type { Phase } from './phases.ts';
import type { PlanNote } from './plan.ts';
import type { DrainPolicy, PolicyPatch } from './policy.ts';
import type { EndedConnection, EndedCount } from './record.ts';
import type { RolloutEntry, RolloutView } from './rollout.ts';
import type { EpochCost, Estimate, HeldConnection, PacingProgress, Verdict, Witness } from './verdict.ts';

/**
 * What the controller's HTTP API answers, under API_PREFIX. Times are epoch milliseconds. Lists come as `{items: [...]}`.
 * Errors have the form ApiError with a fitting HTTP status. Readers ignore fields they do not know.
 */
export const API_PREFIX = '/api/v1';

export interface ApiError {
  /** `SLUICE_` + a code of the catalogue. */
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

export interface AgentView {
  readonly slot: string;
  readonly connected: boolean;
  readonly since: number;
  readonly agentVersion: string;
  readonly versions: readonly string[];
  /** Resident memory of the agent in bytes, as it said in its hello. */
  readonly agentRss?: number;
  /** The controller that holds its link, where there are several. */
  readonly replica?: string;
}

/** One xDS resource type of one epoch's stream, as last answered by Envoy. */
export interface XdsTypeView {
  readonly type: string;
  readonly version: string;
  readonly acked: boolean;
  readonly nack?: string;
}

export interface ProxyView {
  readonly proxy: string;
  readonly connected: boolean;
  readonly agents: readonly AgentView[];
  readonly epochs: readonly EpochStatus[];
  readonly serving?: { readonly epoch: number; readonly version: string; readonly slot: string };
  /** Ids of the upgrades that have not ended, oldest first. */
  readonly upgrades: readonly string[];
  readonly xds: readonly { readonly epoch: number; readonly types: readonly XdsTypeView[] }[];
}

/** One line of an upgrade's record. */
export interface RecordEntry {
  readonly upgradeId: string;
  readonly proxy: string;
  /** Grows by one within an upgrade. */
  readonly seq: number;
  readonly at: number;
  readonly phase: Phase;
  /** What happened, one stable word such as `phase`, `order-acked`, `override`, `reset`. */
  readonly event: string;
  readonly text: string;
}

export interface UpgradeView {
  readonly id: string;
  readonly proxy: string;
  readonly phase: Phase;
  /** Why it is in this phase and what it waits for, one line. */
  readonly reason: string;
  readonly target: UpgradeTarget;
  readonly policy: DrainPolicy;
  readonly from?: string;
  /** Version of the new epoch, once the agent knows it. */
  readonly to?: string;
  readonly method?: string;
  readonly epoch?: number;
  readonly oldEpoch?: number;
  readonly createdAt: number;
  readonly phaseSince: number;
  readonly drainStartedAt?: number;
  readonly safeToResetAt?: number;
  readonly resetAt?: number;
  readonly deadlineAt?: number;
  readonly order?: {
    readonly version: number;
    readonly ackedAt?: number;
    readonly nack?: string;
    readonly appliedAt?: number;
    readonly via?: string;
  };
  readonly verdict?: Verdict;
  readonly checks?: readonly CheckResult[];
  readonly override?: Override;
  readonly connections?: {
    readonly old: number;
    readonly drained: number;
    readonly cut: readonly CutConnection[];
    /** Why it ended before its verdict was safe, where neither policy nor an override said so. */
    readonly why?: string;
  };
  readonly failure?: { readonly code: string; readonly message: string };
  /** What the agent said of the drain's end when it began; the record has it beside the truth. */
  readonly firstEstimate?: Estimate;
  readonly rollbackOf?: string;
  readonly rollbackId?: string;
  /** Only in the answer for one upgrade. */
  readonly record?: readonly RecordEntry[];
}

export interface ConnectionsView {
  readonly proxy: string;
  readonly items: readonly Connection[];
  readonly truncated: boolean;
}

/** Why it is not yet safe, and what a reset now would cut. One per upgrade that has not ended. */
export interface ExplainItem {
  readonly upgradeId: string;
  readonly phase: Phase;
  readonly oldEpoch?: number;
  readonly safe: boolean;
  /** Whole sentences, most important first. */
  readonly why: readonly string[];
  readonly held: readonly HeldConnection[];
  /** Connections that still hold a request or a session, of those in `held`. */
  readonly wouldCut: readonly HeldConnection[];
  /** How many hold one, also beyond those that are named; absent from a controller that does not say it. */
  readonly wouldCutTotal?: number;
  readonly total: number;
  readonly protected: number;
  readonly witnesses: readonly Witness[];
  /** When something changes by itself next, if known. */
  readonly nextChangeAt?: number;
  readonly deadlineAt?: number;
  /** When the drain will be over, and how far the telling has come. */
  readonly estimate?: Estimate;
  readonly pacing?: PacingProgress;
  /** What the old epoch costs while it lingers, and the policy that bounds it. */
  readonly cost?: EpochCost;
  readonly policy?: DrainPolicy;
  /** The limit that it is over. */
  readonly limit?: 'time' | 'memory';
  readonly hint: string;
}

export interface ExplainView {
  readonly proxy: string;
  readonly summary: string;
  readonly items: readonly ExplainItem[];
}

export interface CheckView {
  readonly proxy: string;
  readonly ok: boolean;
  readonly checks: readonly CheckResult[];
  /** What two live epochs would mean for this proxy. */
  readonly notes?: readonly PlanNote[];
}

/** How the connections of an upgrade's old epoch ended. */
export interface EndedView {
  readonly upgradeId: string;
  /** By time. Bounded by MAX_ENDED; `dropped` = so many more. */
  readonly items: readonly EndedConnection[];
  readonly counts: readonly EndedCount[];
  readonly dropped: number;
}

/** Body of POST /upgrades. */
export interface CreateUpgrade extends UpgradeTarget {
  readonly proxy: string;
  readonly policy?: PolicyPatch;
  /** Slot of the agent that is to start the new epoch; chosen by the controller when absent. */
  readonly slot?: string;
}

/** Body of POST /upgrades/:id/reset. */
export interface ResetRequest {
  readonly override?: { readonly by: string; readonly reason: string };
}

/** One line of GET /watch: the whole view each time something in it changed; all of them once at the start. */
export type WatchItem =
  | { readonly kind: 'proxy'; readonly proxy: ProxyView }
  | { readonly kind: 'upgrade'; readonly upgrade: UpgradeView }
  | { readonly kind: 'record'; readonly record: RecordEntry }
  | { readonly kind: 'rollout'; readonly rollout: RolloutView }
  | { readonly kind: 'rolloutRecord'; readonly entry: RolloutEntry }
  /** Everything known at the start has been sent. */
  | { readonly kind: 'synced' }
  /** Nothing happened for a while; the stream lives. */
  | { readonly kind: 'ping' };
