import { DEFAULT_ANALYSIS, DEFAULT_POLICY, DEFAULT_STRATEGY, type RolloutSpec } from '@sluice/contract';
import { expect, it } from 'vitest';
import { plan } from './planner.ts';
import { newRollout, type Observed, type RolloutState } from './state.ts';

const spec = (partition: number): RolloutSpec => ({
  selector: { proxies: ['*'], labels: {} },
  target: { to: 'b' },
  policy: DEFAULT_POLICY,
  strategy: { ...DEFAULT_STRATEGY, partition },
  analysis: DEFAULT_ANALYSIS,
});
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
