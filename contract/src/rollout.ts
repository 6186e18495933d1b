import type { UpgradeTarget } from './messages.ts';
import type { DrainPolicy } from './policy.ts';

/** A number, or a part of the fleet such as `25%`. */
export type IntOrPercent = number | string;

/** Which proxies of a fleet. All that is given must hold. */
export interface RolloutSelector {
  /** Names, or globs with `*`. Empty: all. */
  readonly proxies: readonly string[];
  /** Labels that a proxy's agent (or its Pod) has. */
  readonly labels: Readonly<Record<string, string>>;
}

/**
 * How a fleet is upgraded. Where a word is Kubernetes' its meaning is too; the places where StatefulSet, CloneSet and
 * SidecarSet differ are decided in `xds-server/src/rollout/numbers.ts`.
 */
export interface RolloutStrategy {
  /** So many stay on the version they have. */
  readonly partition: IntOrPercent;
  /** So many at most are in an upgrade or otherwise not there, at once. */
  readonly maxUnavailable: IntOrPercent;
  /** The first stage: so many, or those named (globs). 0: none. */
  readonly canary: IntOrPercent | readonly string[];
  /** Stages after it, each as the sum of all so far; the last one is all. Empty: one stage. */
  readonly batches: readonly IntOrPercent[];
  /** How long the rollout stands still after a stage. */
  readonly pauseBetweenMs: number;
  /** `manual`: after a stage it stands still until somebody promotes it. */
  readonly promotion: 'auto' | 'manual';
  /** Label whose values (zones) get their turns evenly. Empty: none. */
  readonly spread: string;
  /** A proxy is in its upgrade until the new epoch serves, or until the old one has ended. */
  readonly until: 'serving' | 'reset';
}

/** More than so many of one of these, since the start or the last resume, and nothing more is started. null: not judged. */
export interface RolloutAnalysis {
  /** Upgrades that failed or were rolled back by the agent. */
  readonly maxFailedUpgrades: number | null;
  /** Crashes of new epochs. */
  readonly maxCrashes: number | null;
  /** Connections that were cut although policy protected them. */
  readonly maxCutConnections: number | null;
  /** Both of these need a source of metrics. */
  readonly maxFailedRequests: number | null;
  readonly maxP99Ms: number | null;
  /** A stage that is judged by metrics is over when they are known for so long after its last member began to serve. */
  readonly windowMs: number;
  readonly onFailure: 'pause' | 'rollback';
}

/** A label selector as Kubernetes has it (metav1.LabelSelector). */
export interface LabelSelector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist';
    readonly values?: readonly string[];
  }[];
}

/** The Pods of a rollout, and whose it is: a HotUpgrade's. Their proxies are named `POD.NAMESPACE`. */
export interface RolloutPods {
  readonly namespace: string;
  /** Name and uid of the HotUpgrade. */
  readonly name: string;
  readonly uid: string;
  readonly selector: LabelSelector;
  /** NAME of the pair of containers NAME-1 and NAME-2. */
  readonly container: string;
  /** One of both: `version` is the tag of the image that a Pod's proxy has. */
  readonly target: { readonly image?: string; readonly version?: string };
  readonly provider: 'InPlace' | 'OpenKruise';
  readonly emptyImage?: string;
  readonly sidecarSet?: string;
}

export interface RolloutSpec {
  readonly selector: RolloutSelector;
  /** Set where the members are Pods: then it selects, and the selector above says nothing. */
  readonly pods?: RolloutPods;
  readonly target: UpgradeTarget;
  readonly policy: DrainPolicy;
  readonly strategy: RolloutStrategy;
  readonly analysis: RolloutAnalysis;
}

export const DEFAULT_STRATEGY: RolloutStrategy = {
  partition: 0,
  maxUnavailable: 1,
  canary: 1,
  batches: [],
  pauseBetweenMs: 0,
  promotion: 'auto',
  spread: '',
  until: 'serving',
};

export const DEFAULT_ANALYSIS: RolloutAnalysis = {
  maxFailedUpgrades: 0,
  maxCrashes: 0,
  maxCutConnections: 0,
  maxFailedRequests: null,
  maxP99Ms: null,
  windowMs: 60_000,
  onFailure: 'pause',
};

export const ROLLOUT_PHASES = [
  /** Stages are being upgraded. */
  'Progressing',
  /** Nothing new is started: a person, the analysis, or the end of a stage asked for it. */
  'Paused',
  /** What it changed is flipped back. */
  'RollingBack',
  /** Given up; what is on its way is being ended, what serves stays. */
  'Aborting',
  /** All but the partition have the target, and their old epochs have ended. */
  'Done',
  'RolledBack',
  'Aborted',
  /** It could not be rolled back everywhere. */
  'Failed',
] as const;
export type RolloutPhase = (typeof ROLLOUT_PHASES)[number];

export function isRolloutOver(phase: RolloutPhase): boolean {
  return phase === 'Done' || phase === 'RolledBack' || phase === 'Aborted' || phase === 'Failed';
}

export const MEMBER_STATES = [
  'waiting',
  /** It had the target before its turn came. */
  'current',
  /** Ordered; its new epoch does not serve yet. */
  'starting',
  /** The target serves, the old epoch drains. */
  'draining',
  'upgraded',
  /** The version from before serves still, or again. */
  'failed',
  /** Its flip back is ordered. */
  'flipping',
  'rolledBack',
  /** The flip back failed: the target serves still. */
  'stuck',
] as const;
export type MemberState = (typeof MEMBER_STATES)[number];

/** One proxy of a rollout. */
export interface RolloutMember {
  readonly name: string;
  /** Of a Pod: one of the same name that is made anew is another member. */
  readonly uid?: string;
  /** What it served when its upgrade was ordered, as its fleet names it: what a flip back wants. */
  readonly from?: string;
  /** Value of the label that the rollout spreads over. */
  readonly zone: string;
  readonly state: MemberState;
  /** Index of the stage in which it was started. */
  readonly stage?: number;
  /** The upgrade, and the one that flips it back. */
  readonly upgradeId?: string;
  readonly backId?: string;
  readonly since: number;
  readonly reason: string;
  /** All so far, those before a resume too. */
  readonly failures: number;
  readonly crashes: number;
  readonly cut: number;
  /** When its order was last given and how often, as long as nothing answers. */
  readonly sentAt?: number;
  readonly attempts?: number;
  /** When its upgrade was begun, and when the target served: what metrics say of it is judged from then on. */
  readonly startedAt?: number;
  readonly servedAt?: number;
}

export interface RolloutPause {
  readonly by: 'user' | 'analysis' | 'stage';
  readonly reason: string;
  readonly at: number;
  /** It goes on by itself then. */
  readonly until?: number;
}

/** Counts by which a rollout is judged. */
export interface RolloutCounts {
  readonly failedUpgrades: number;
  readonly crashes: number;
  readonly cutConnections: number;
  readonly failedRequests?: number;
  readonly p99Ms?: number;
}

export interface RolloutEntry {
  readonly rolloutId: string;
  /** Grows by one within a rollout. */
  readonly seq: number;
  readonly at: number;
  readonly phase: RolloutPhase;
  /** One stable word such as `phase`, `started`, `serving`, `failed`, `stage`, `analysis`. */
  readonly event: string;
  readonly text: string;
  readonly member?: string;
}

export interface RolloutView {
  readonly id: string;
  readonly phase: RolloutPhase;
  /** What it does or waits for, one line. */
  readonly reason: string;
  readonly spec: RolloutSpec;
  readonly createdAt: number;
  readonly phaseSince: number;
  readonly pause?: RolloutPause;
  /** Current stage, from 0; `goal`: members that are to have been started by its end. */
  readonly stage: { readonly index: number; readonly count: number; readonly goal: number };
  readonly summary: Readonly<Record<MemberState, number>> & { readonly total: number };
  readonly counts: RolloutCounts;
  readonly members: readonly RolloutMember[];
  /** Only in the answer for one rollout. */
  readonly record?: readonly RolloutEntry[];
}

/** Body of POST /rollouts: what is left out is as the defaults say. */
export interface CreateRollout extends UpgradeTarget {
  readonly selector?: Partial<RolloutSelector>;
  readonly policy?: unknown;
  readonly strategy?: Partial<RolloutStrategy>;
  readonly analysis?: Partial<RolloutAnalysis>;
}

export const ROLLOUT_VERBS = ['pause', 'resume', 'promote', 'rollback', 'abort'] as const;
export type RolloutVerb = (typeof ROLLOUT_VERBS)[number];
