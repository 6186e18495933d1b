import type { RolloutCounts, RolloutMember } from '@sluice/contract';
import type { Observed } from './state.ts';
import type { Turn } from './turn.ts';

/** Takes in what the fleet says of each member: who came, who left, what became of the orders. */
export function observe(turn: Turn): void {
  const { spec } = turn.state;
  for (const member of turn.state.members) {
    const seen = turn.fleet.get(member.name);
    if (seen !== undefined && seen.uid === member.uid) continue;
    const left = UNDER_WAY.has(member.state) ? { left: (turn.state.left ?? 0) + 1 } : {};
    const members = turn.state.members.filter((one) => one.name !== member.name);
    turn.set({ members, baseline: without(turn.state.baseline, member), ...left });
    turn.note('gone', `${member.name} is not in the fleet any more`, member.name);
  }
  const known = new Set(turn.state.members.map((one) => one.name));
  const added = [...turn.fleet.values()].filter((one) => !known.has(one.name)).map((one) => born(one, turn.now));
  if (added.length > 0) {
    const all = [...turn.state.members, ...added];
    turn.set({ members: all.sort((a, b) => byName.compare(a.name, b.name)) });
  }
  for (const member of turn.state.members) {
    const seen = turn.fleet.get(member.name) as Observed;
    const zone = spec.strategy.spread === '' ? '' : (seen.labels[spec.strategy.spread] ?? '');
    if (zone !== member.zone) turn.member(member.name, { zone });
    follow(turn, member, seen);
  }
}

/**
 * What went wrong with one that leaves still counts, and what was forgiven of it forgives nothing of others: the counts fall by its
 * own, and so does what they are held against.
 */
function without(baseline: RolloutCounts, { failures, crashes, cut }: RolloutMember): RolloutCounts {
  return {
    ...baseline,
    failedUpgrades: baseline.failedUpgrades - failures,
    crashes: baseline.crashes - crashes,
    cutConnections: baseline.cutConnections - cut,
  };
}

const UNDER_WAY: ReadonlySet<string> = new Set(['starting', 'draining', 'flipping']);

const byName = new Intl.Collator('en', { numeric: true });

function born({ name, uid }: Observed, now: number): RolloutMember {
  const own = uid === undefined ? {} : { uid };
  return { name, ...own, zone: '', state: 'waiting', since: now, reason: '', failures: 0, crashes: 0, cut: 0 };
}

function follow(turn: Turn, member: RolloutMember, { step, upToDate }: Observed): void {
  const { name, state } = member;
  if (state === 'waiting' && upToDate) {
    turn.member(name, { state: 'current', reason: 'had the target already' });
    return;
  }
  const ordered = state === 'flipping' ? member.backId : member.upgradeId;
  if (step === undefined || step.id !== ordered) return;
  if (step.reason !== member.reason) turn.member(name, { reason: step.reason });
  if (state === 'flipping') flipped(turn, name, step);
  else if (state === 'starting' || state === 'draining') upgraded(turn, member, step);
}

type Step = NonNullable<Observed['step']>;

function upgraded(turn: Turn, { name, state, cut, failures }: RolloutMember, step: Step): void {
  switch (step.state) {
    case 'serving':
      if (state === 'starting') {
        turn.member(name, { state: 'draining', servedAt: turn.now });
        turn.note('serving', `${name} serves ${turn.state.spec.target.to}`, name);
      }
      return;
    case 'done':
      turn.member(name, {
        state: 'upgraded',
        cut: cut + step.cut,
        ...(state === 'starting' && { servedAt: turn.now }),
      });
      turn.note('upgraded', `${name}: ${step.reason}`, name);
      return;
    case 'failed':
    case 'rolledBack':
      // Where everything is being taken back that is no failure but what was asked for.
      if (turn.state.phase === 'RollingBack' || turn.state.phase === 'Aborting') {
        turn.member(name, { state: 'rolledBack', cut: cut + step.cut });
        turn.note('rolled-back', `${name}: ${step.reason}`, name);
      } else {
        turn.member(name, { state: 'failed', failures: failures + 1, cut: cut + step.cut });
        turn.note('failed', `${name}: ${step.reason}`, name);
      }
      return;
    default:
      return;
  }
}

function flipped(turn: Turn, name: string, step: Step): void {
  if (step.state === 'serving' || step.state === 'done') {
    turn.member(name, { state: 'rolledBack' });
    turn.note('rolled-back', `${name} serves again what it served before`, name);
  }
  if (step.state === 'failed' || step.state === 'rolledBack') {
    turn.member(name, { state: 'stuck' });
    turn.note('stuck', `${name} could not be flipped back: ${step.reason}`, name);
  }
}
