import { MEMBER_STATES, type MemberState, type RolloutEntry, type RolloutView } from '@sluice/contract';
import { countsOf } from './analysis.ts';
import { stageGoals } from './numbers.ts';
import type { RolloutState } from './state.ts';

export function rolloutView(state: RolloutState, record?: readonly RolloutEntry[]): RolloutView {
  const { id, phase, reason, spec, createdAt, phaseSince, pause, members, measured } = state;
  const goals = stageGoals(
    spec,
    members.map((one) => one.name),
  );
  const index = Math.min(state.stage, goals.length - 1);
  const summary = Object.fromEntries(
    MEMBER_STATES.map((name) => [name, members.filter((one) => one.state === name).length]),
  ) as Record<MemberState, number>;
  return {
    id,
    phase,
    reason,
    spec,
    createdAt,
    phaseSince,
    ...(pause === undefined ? {} : { pause }),
    stage: { index, count: goals.length, goal: goals[index] ?? 0 },
    summary: { ...summary, total: members.length },
    counts: countsOf(members, measured),
    members,
    ...(record === undefined ? {} : { record }),
  };
}
