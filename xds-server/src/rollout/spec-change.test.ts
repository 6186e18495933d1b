import { DEFAULT_ANALYSIS, DEFAULT_STRATEGY, type RolloutSpec } from '@sluice/contract';
import { expect, it } from 'vitest';
import { rolloutSpec } from '../testing/rollout-spec.ts';
import { plan } from './planner.ts';
import { newRollout, type Observed, type RolloutState } from './state.ts';

const spec = (partition: number): RolloutSpec => ({ ...rolloutSpec({ partition }), target: { to: 'b' } });
const seen = (name: string, more: Partial<Observed> = {}): Observed => ({
  ...{ name, uid: `${name}-uid`, labels: {}, reachable: true, available: true, upToDate: false, serving: 'a' },
  ...more,
});
const step = (id: string, state: 'serving' | 'done') => ({ id, state, reason: state, cut: 0 });
const states = ({ members }: RolloutState) => members.map((one) => one.state);

/** One of two is upgraded, the other kept back. */
function done(): RolloutState {
  const begun = plan(newRollout('r', spec(1), 1), [seen('p0'), seen('p1')], 2).state;
  const id = begun.members[0]?.upgradeId ?? '';
  const after = [seen('p0', { upToDate: true, step: step(id, 'done') }), seen('p1')];
  const { state } = plan(begun, after, 3);
  expect([state.phase, states(state)]).toEqual(['Done', ['upgraded', 'waiting']]);
  return state;
}

it('one that is Done goes on when its partition is taken back, and knows what each served before', () => {
  const { state, actions } = plan(done(), [seen('p0', { upToDate: true }), seen('p1')], 4, {
    type: 'spec',
    spec: spec(0),
  });
  expect(state.phase).toBe('Progressing');
  expect(actions).toMatchObject([{ type: 'start', member: 'p1' }]);
  expect(state.members.map(({ from }) => from)).toEqual(['a', 'a']);
});

it('it stays Done where that leaves nothing to do, and no other end is undone', () => {
  const fleet = [seen('p0', { upToDate: true }), seen('p1')];
  expect(plan(done(), fleet, 4, { type: 'spec', spec: spec(2) }).state.phase).toBe('Done');
  const back = { ...done(), phase: 'RolledBack' as const };
  expect(plan(back, fleet, 4, { type: 'spec', spec: spec(0) }).state).toEqual(back);
});

it('the target of a rollout stays what it is', () => {
  const other = { ...spec(0), target: { to: 'c' } };
  const { state } = plan(done(), [seen('p0'), seen('p1')], 4, { type: 'spec', spec: other });
  expect(state.spec).toMatchObject({ target: { to: 'b' }, strategy: { partition: 0 } });
});

it('one that is made anew under the same name is another member; who left in the middle is counted', () => {
  const begun = plan(newRollout('r', spec(0), 1), [seen('p0'), seen('p1')], 2).state;
  expect(states(begun)).toEqual(['starting', 'waiting']);
  const { state, entries } = plan(begun, [seen('p0', { uid: 'another' }), seen('p1')], 3);
  expect(entries.map(({ event }) => event)).toContain('gone');
  expect(state).toMatchObject({ left: 1, phase: 'Progressing' });
  expect(state.members.find(({ name }) => name === 'p0')).toMatchObject({ uid: 'another', failures: 0 });
  expect(state.members.find(({ name }) => name === 'p0')?.upgradeId).not.toBe(begun.members[0]?.upgradeId);
  expect(plan(begun, [seen('p0')], 3).state.left).toBeUndefined();
});

it('the failures of members that left are neither forgotten nor do they make up for those of others', () => {
  const wide = { ...spec(0), strategy: { ...DEFAULT_STRATEGY, canary: 0, maxUnavailable: 2 } };
  const failed = (name: string, { members }: RolloutState): Observed => {
    const id = members.find((one) => one.name === name)?.upgradeId ?? '';
    return seen(name, { step: { id, state: 'failed', reason: 'it does not come up', cut: 0 } });
  };
  const begun = plan(newRollout('r', wide, 1), [seen('p0'), seen('p1'), seen('p2'), seen('p3')], 2).state;
  const both = [failed('p0', begun), failed('p1', begun), seen('p2'), seen('p3')];
  const paused = plan(begun, both, 3).state;
  expect([paused.phase, states(paused)]).toEqual(['Paused', ['failed', 'failed', 'waiting', 'waiting']]);
  // Deleted and resumed: what comes from now on is judged, the first failure of it.
  const resumed = plan(paused, [seen('p0'), seen('p1'), seen('p2'), seen('p3')], 4, { type: 'resume', by: 'jo' }).state;
  const left = plan(resumed, [seen('p2'), seen('p3')], 5).state;
  expect([left.phase, states(left)]).toEqual(['Progressing', ['starting', 'starting']]);
  expect(plan(left, [failed('p2', left), seen('p3')], 6).state).toMatchObject({
    phase: 'Paused',
    reason: 'analysis: 1 failed upgrades, at most 0 allowed',
  });
  // One that is allowed counts on when its member is gone.
  const one = { ...wide, analysis: { ...DEFAULT_ANALYSIS, maxFailedUpgrades: 1 } };
  const first = plan(newRollout('r', one, 1), [seen('p0'), seen('p1')], 2).state;
  const second = plan(first, [failed('p0', first), seen('p1')], 3).state;
  const third = plan(second, [seen('p1')], 4).state;
  expect(third.phase).toBe('Progressing');
  expect(plan(third, [failed('p1', third)], 5).state.phase).toBe('Paused');
});

it('a rollback flips back who failed and serves the target all the same, and nobody else who failed', () => {
  const wide = { ...spec(0), strategy: { ...DEFAULT_STRATEGY, canary: 0, maxUnavailable: 3 } };
  const fleet = ['p0', 'p1', 'p2'];
  const begun = plan(
    newRollout('r', wide, 1),
    fleet.map((name) => seen(name)),
    2,
  ).state;
  const failed = plan(
    begun,
    begun.members.map(({ name, upgradeId = '' }) =>
      seen(name, { step: { id: upgradeId, state: 'failed', reason: 'too late', cut: 0 } }),
    ),
    3,
  ).state;
  expect(states(failed)).toEqual(['failed', 'failed', 'failed']);
  // p1 came up later; of p2 nobody serves, but the target never did.
  const { serving: _, ...silent } = seen('p2', { available: false });
  const late = [seen('p0'), seen('p1', { serving: 'b', upToDate: true }), silent];
  const { state, actions } = plan(failed, late, 4, { type: 'rollback', by: 'jo' });
  expect([state.phase, states(state)]).toEqual(['RollingBack', ['failed', 'flipping', 'failed']]);
  expect(actions).toMatchObject([{ type: 'flip', member: 'p1' }]);
  const back = state.members[1]?.backId ?? '';
  const over = plan(state, [seen('p0'), seen('p1', { step: step(back, 'done') }), silent], 5).state;
  expect([over.phase, states(over)]).toEqual(['RolledBack', ['failed', 'rolledBack', 'failed']]);
});

it('it is looked at each minute while somebody starts: that it takes too long is no event', () => {
  const first = plan(newRollout('r', spec(0), 1), [seen('p0')], 2);
  const id = first.state.members[0]?.upgradeId ?? '';
  const starts = seen('p0', { step: { id, state: 'starting', reason: 'starts', cut: 0 } });
  expect(plan(first.state, [starts], 10).wakeAt).toBe(60_010);
});
