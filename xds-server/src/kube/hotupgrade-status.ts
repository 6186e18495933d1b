import { isRolloutOver, type MemberState } from '@sluice/contract';
import { stageGoals } from '../rollout/numbers.ts';
import type { RolloutState } from '../rollout/state.ts';
import { type Finding, nextConditions } from './conditions.ts';
import type { HotUpgrade, HotUpgradeStatus, Problem } from './hotupgrade.ts';
import type { Claims } from './hotupgrade-claims.ts';
import type { PodsSeen } from './kube-fleet.ts';

/** The CRD's bounds. */
const MAX_REFUSED = 20;
const MAX_REASON = 1_024;

export interface StatusInput {
  readonly hup: HotUpgrade;
  readonly state: RolloutState | undefined;
  /** undefined: its provider is not ready. */
  readonly seen: PodsSeen | undefined;
  readonly conflicts: Claims['conflicts'];
  /** Why it is not carried out as it is. */
  readonly problem: Problem | undefined;
  /** Fields that the installed CRD does not have. */
  readonly missing: readonly string[];
  readonly between: number;
  readonly fence: number;
  readonly now: Date;
}

/** Its last rollout ended otherwise than well, as the status says of this generation. */
export function endedBadly({ metadata, status }: HotUpgrade): boolean {
  const bad = ['RolledBack', 'Aborted', 'Failed'].includes(status?.phase ?? '');
  return bad && status?.observedGeneration === metadata?.generation;
}

/**
 * What the status said of a rollout that ended badly and is not stored any more. It has to stay: by it alone the next look, and the
 * next leader, know that the target is not to be begun anew.
 */
function lostEnd({ hup, state }: StatusInput): HotUpgradeStatus | undefined {
  return state === undefined && endedBadly(hup) ? hup.status : undefined;
}

/** The whole status of a HotUpgrade: a summary of its rollout and its Pods. */
export function statusOf(input: StatusInput): HotUpgradeStatus {
  const { hup, state, seen, fence, now } = input;
  const generation = hup.metadata?.generation ?? 0;
  const observed = seen?.observed ?? [];
  const count = (...states: readonly MemberState[]): number =>
    state?.members.filter((one) => states.includes(one.state)).length ?? 0;
  const goals =
    state &&
    stageGoals(
      state.spec,
      state.members.map((one) => one.name),
    );
  const image = imageOf(input);
  const lost = lostEnd(input);
  const rollout = state?.id ?? lost?.rollout;
  return {
    observedGeneration: generation,
    fence,
    conditions: nextConditions(hup.status?.conditions ?? [], findings(input), generation, now),
    phase: state?.phase ?? lost?.phase ?? (hup.spec.strategy?.paused ? 'Paused' : 'Pending'),
    reason: (lost?.reason ?? reasonOf(input)).slice(0, MAX_REASON),
    ...(rollout !== undefined && { rollout }),
    ...(image !== undefined && { image }),
    ...(state !== undefined &&
      goals !== undefined && { stage: Math.min(state.stage + 1, goals.length), stages: goals.length }),
    total: observed.length,
    updated: observed.filter((one) => one.upToDate).length,
    draining: count('draining'),
    ready: observed.filter((one) => one.available).length,
    failed: count('failed', 'stuck'),
    deleted: state?.left ?? 0,
    refused: (seen?.refused ?? []).slice(0, MAX_REFUSED),
  };
}

function imageOf({ hup, seen }: StatusInput): string | undefined {
  const { image, version } = hup.spec.target;
  return image ?? (seen?.images.length === 1 ? seen.images[0] : version);
}

function reasonOf({ state, problem, missing, seen, hup }: StatusInput): string {
  if (state !== undefined) return state.reason;
  if (problem !== undefined) return problem.message;
  if (missing.length > 0) return 'the installed CRD is older than this controller';
  if (hup.spec.strategy?.paused) return 'paused before it began';
  if (seen?.observed.length === 0) return 'no Pod is selected that can have a part in it';
  return 'begins';
}

/** Also those that are False, for a reader has to see that somebody looked. */
function findings(input: StatusInput): Finding[] {
  const { hup, state, seen, conflicts, problem, missing, between } = input;
  const found = (type: string, holds: boolean, reason: string, message: string): Finding => ({
    type,
    status: holds ? 'True' : 'False',
    reason,
    message,
  });
  const phase = state?.phase;
  const progressing = phase === 'Progressing' || phase === 'RollingBack' || phase === 'Aborting';
  const conditions = [
    problem === undefined
      ? found('Accepted', true, 'Accepted', '')
      : found('Accepted', false, problem.reason, problem.message),
    found('Progressing', progressing, progressReason(state), state?.reason ?? ''),
    found(
      'Complete',
      phase === 'Done',
      phase === 'Done' ? 'Done' : 'NotDone',
      phase === 'Done' ? (state?.reason ?? '') : '',
    ),
    lostEnd(input)?.conditions?.find(({ type }) => type === 'Failed') ?? failure(state),
    conflicts.length === 0
      ? found('Conflict', false, 'NoConflict', '')
      : found('Conflict', true, 'OtherHotUpgrade', conflictText(conflicts)),
    refusal(seen),
    seen === undefined || seen.silent.length === 0
      ? found('AgentsHeard', seen !== undefined, seen === undefined ? 'Unknown' : 'AllHeard', '')
      : found('AgentsHeard', false, 'AgentsAway', `no agent is heard of ${listed(seen.silent)}`),
    missing.length === 0
      ? found('SchemaCurrent', true, 'Current', '')
      : found(
          'SchemaCurrent',
          false,
          'OldCustomResourceDefinition',
          `the API server would drop ${listed(missing)}: nothing is begun; apply deploy/crds of this version`,
        ),
  ];
  if (hup.metadata?.deletionTimestamp !== undefined) {
    conditions.push(found('Deleting', true, 'WaitsForPods', deletion(state, between)));
  }
  return conditions;
}

function progressReason(state: RolloutState | undefined): string {
  if (state === undefined) return 'NotBegun';
  if (state.phase !== 'Paused') return state.phase;
  return { user: 'PausedByUser', analysis: 'PausedByAnalysis', stage: 'PausedAfterStage' }[state.pause?.by ?? 'user'];
}

function failure(state: RolloutState | undefined): Finding {
  const phase = state?.phase;
  const bad =
    phase === 'Failed' || phase === 'RolledBack' || phase === 'RollingBack' || state?.pause?.by === 'analysis';
  if (state === undefined || !bad) return { type: 'Failed', status: 'False', reason: 'NoFailure', message: '' };
  const reason = phase === 'Paused' ? 'AnalysisFailed' : state.phase;
  const failed = state.members.filter((one) => one.state === 'failed' || one.state === 'stuck');
  const named = failed.slice(0, 3).map((one) => `${podName(one.name)}: ${one.reason}`);
  const more = failed.length > named.length ? [`and ${failed.length - named.length} more`] : [];
  const hint =
    state.pause?.by === 'analysis'
      ? [`to go on, set spec.strategy.paused and take it back, or sluice rollout resume ${state.id}`]
      : [];
  return { type: 'Failed', status: 'True', reason, message: [state.reason, ...named, ...more, ...hint].join('; ') };
}

function refusal(seen: PodsSeen | undefined): Finding {
  const [first] = seen?.refused ?? [];
  if (first === undefined || seen === undefined)
    return { type: 'PodsRefused', status: 'False', reason: 'NoneRefused', message: '' };
  const texts = seen.refused.slice(0, 3).map((one) => `${one.pod}: ${one.message}`);
  const more = seen.refused.length > texts.length ? [`and ${seen.refused.length - texts.length} more`] : [];
  // One reason for a machine: that of the first; all of them stand in `refused`.
  return { type: 'PodsRefused', status: 'True', reason: first.reason, message: [...texts, ...more].join('; ') };
}

function deletion(state: RolloutState | undefined, between: number): string {
  const under = state?.members.filter((one) => ['starting', 'draining', 'flipping'].includes(one.state)) ?? [];
  if (under.length > 0) return `waits for the upgrades under way of ${listed(under.map((one) => podName(one.name)))}`;
  if (between > 0) return `waits for ${between} Pods whose old containers drain`;
  return state !== undefined && !isRolloutOver(state.phase) ? `waits for the end of ${state.id}` : 'goes';
}

function conflictText(conflicts: Claims['conflicts']): string {
  const texts = conflicts
    .slice(0, 3)
    .map(({ pod, owner }) => `Pod ${pod} belongs to HotUpgrade ${owner}, which is older`);
  const more = conflicts.length > texts.length ? [`and ${conflicts.length - texts.length} more`] : [];
  return [...texts, ...more].join('; ');
}

function listed(names: readonly string[]): string {
  return names.length <= 5 ? names.join(', ') : `${names.slice(0, 5).join(', ')} and ${names.length - 5} more`;
}

function podName(member: string): string {
  return member.slice(0, member.lastIndexOf('.'));
}
