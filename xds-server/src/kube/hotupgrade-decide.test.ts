import { DEFAULT_ANALYSIS, DEFAULT_POLICY, DEFAULT_STRATEGY, ROLLOUT_PHASES, type RolloutSpec } from '@sluice/contract';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { newRollout, type RolloutState } from '../rollout/state.ts';
import { type Decision, decideHotUpgrade, PAUSED_BY, type Situation } from './hotupgrade-decide.ts';

const spec = (image: string, more: Partial<RolloutSpec['strategy']> = {}): RolloutSpec => ({
  selector: { proxies: [], labels: {} },
  pods: {
    namespace: 'shop',
    name: 'web',
    uid: 'u',
    selector: {},
    container: 'proxy',
    target: { image },
    provider: 'InPlace',
    emptyImage: 'empty:1',
  },
  target: { to: image },
  policy: DEFAULT_POLICY,
  strategy: { ...DEFAULT_STRATEGY, ...more },
  analysis: DEFAULT_ANALYSIS,
});
const state = (more: Partial<RolloutState> = {}): RolloutState => ({ ...newRollout('r', spec('b'), 1), ...more });
const calm: Situation = {
  spec: spec('b'),
  paused: false,
  deleting: false,
  state: undefined,
  total: 3,
  outdated: 0,
  kept: 0,
  between: 0,
  endedBadly: false,
};
const decide = (more: Partial<Situation>): Decision => decideHotUpgrade({ ...calm, ...more });
const NOTHING = { type: 'nothing' };
const pause = (by: 'user' | 'analysis', reason: string) => ({ phase: 'Paused', pause: { by, reason, at: 1 } }) as const;

describe('decideHotUpgrade', () => {
  it.each<[string, Partial<Situation>, object]>([
    ['begins', {}, { type: 'create' }],
    ['waits for the first Pod', { total: 0 }, NOTHING],
    ['begins nothing while paused', { paused: true }, NOTHING],
    ['begins nothing that can not be carried out', { spec: undefined }, NOTHING],
    ['does not begin anew what ended badly, though its rollout is lost', { endedBadly: true }, NOTHING],
    ['leaves a running one alone', { state: state() }, NOTHING],
    [
      'passes a changed strategy on',
      { state: state(), spec: spec('b', { partition: 2 }) },
      { type: 'event', event: { type: 'spec' } },
    ],
    ['pauses', { state: state(), paused: true }, { type: 'event', event: { type: 'pause', by: PAUSED_BY } }],
    [
      'pauses what it could not begin any more, such as without its DrainPolicy',
      { state: state(), spec: undefined, paused: true },
      { type: 'event', event: { type: 'pause', by: PAUSED_BY } },
    ],
    ['pauses nothing that is over', { state: state({ phase: 'Done' }), spec: undefined, paused: true }, NOTHING],
    ['pauses once', { state: state(pause('user', `by ${PAUSED_BY}`)), paused: true }, NOTHING],
    [
      'resumes what it paused',
      { state: state(pause('user', `by ${PAUSED_BY}`)) },
      { type: 'event', event: { type: 'resume' } },
    ],
    ['does not resume what a person paused', { state: state(pause('user', 'by ada')) }, NOTHING],
    ['does not resume what the analysis paused', { state: state(pause('analysis', 'analysis: 1 crash')) }, NOTHING],
    [
      'takes over the pause of the analysis, which is how a person resumes it',
      { state: state(pause('analysis', 'analysis: 1 crash')), paused: true },
      { type: 'event', event: { type: 'pause' } },
    ],
    [
      'ends a running one for another target',
      { state: state(), spec: spec('c') },
      { type: 'event', event: { type: 'abort' } },
    ],
    ['lets a flip back end first', { state: state({ phase: 'RollingBack' }), spec: spec('c') }, NOTHING],
    ['then begins the next', { state: state({ phase: 'Aborted' }), spec: spec('c') }, { type: 'create' }],
    [
      'begins again for another target after a flip back',
      { state: state({ phase: 'RolledBack' }), spec: spec('a') },
      { type: 'create' },
    ],
    ['does not begin again by itself', { state: state({ phase: 'RolledBack' }) }, NOTHING],
    ['is done', { state: state({ phase: 'Done' }) }, NOTHING],
    [
      'goes on for new Pods',
      { state: state({ phase: 'Done' }), outdated: 1 },
      { type: 'event', event: { type: 'spec' } },
    ],
    ['keeps a partition back', { state: state({ phase: 'Done' }), outdated: 1, kept: 1 }, NOTHING],
    ['is aborted when it is deleted', { state: state(), deleting: true }, { type: 'event', event: { type: 'abort' } }],
    ['waits for Pods that drain', { state: state({ phase: 'Aborted' }), deleting: true, between: 1 }, NOTHING],
    ['is released', { state: state({ phase: 'Aborted' }), deleting: true }, { type: 'release' }],
    ['is released when it never began', { deleting: true, spec: undefined }, { type: 'release' }],
  ])('%s', (_, situation, expected) => {
    expect(decide(situation)).toMatchObject(expected);
  });

  const situations = fc.record({
    spec: fc.constantFrom(undefined, spec('b'), spec('b', { partition: 1 }), spec('c')),
    paused: fc.boolean(),
    deleting: fc.boolean(),
    state: fc.option(
      fc.record({ phase: fc.constantFrom(...ROLLOUT_PHASES) }).map((more) => state(more)),
      { nil: undefined },
    ),
    total: fc.nat(3),
    outdated: fc.nat(3),
    kept: fc.nat(3),
    between: fc.nat(2),
    endedBadly: fc.boolean(),
  });

  it('never has two rollouts at once, begins nothing when paused or deleted, releases nothing under way', () => {
    fc.assert(
      fc.property(situations, (situation) => {
        const decision = decideHotUpgrade(situation);
        const running =
          situation.state !== undefined &&
          ['Progressing', 'Paused', 'RollingBack', 'Aborting'].includes(situation.state.phase);
        if (decision.type === 'create') {
          expect(running || situation.paused || situation.deleting || situation.total === 0).toBe(false);
        }
        if (decision.type === 'release') expect(running || situation.between > 0 || !situation.deleting).toBe(false);
      }),
    );
  });
});
