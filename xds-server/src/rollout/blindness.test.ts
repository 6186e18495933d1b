import { expect, it } from 'vitest';
import { rolloutSpec } from '../testing/rollout-spec.ts';
import { plan } from './planner.ts';
import { SimulatedFleet } from './simulation.ts';
import { newRollout, type RolloutEvent, type RolloutState } from './state.ts';

const START = 1_000_000;

/** Three members, the canary first, judged by failed requests; half a minute of each stage is watched. */
function rig() {
  const fleet = new SimulatedFleet();
  for (const name of ['p0', 'p1', 'p2']) fleet.add(name);
  const spec = rolloutSpec({ canary: 1, maxUnavailable: 2 }, { maxFailedRequests: 0, windowMs: 30_000 });
  let now = START;
  let state: RolloutState = newRollout('r', spec, now);
  const step = (event: RolloutEvent = { type: 'tick' }): RolloutState => {
    const result = plan(state, fleet.observe(), now, event);
    state = JSON.parse(JSON.stringify(result.state)) as RolloutState;
    for (const action of result.actions) fleet.carryOut(action);
    return state;
  };
  return {
    fleet,
    step,
    heard: (failedRequests = 0, at = now) => step({ type: 'measured', measured: { at, failedRequests } }),
    wait: (ms: number) => {
      now += ms;
    },
    started: () => fleet.taken.filter((one) => one.type === 'start').map((one) => one.member),
  };
}

it('a rollout that metrics are to judge begins nobody before they were heard, nor while they are away', () => {
  const { step, heard, wait, started, fleet } = rig();
  expect(step().reason).toContain('waits for the first word of the source of metrics');
  expect(step({ type: 'unmeasured', reason: 'no answer' }).reason).toContain(
    'nothing is begun without metrics: no answer',
  );
  expect(started()).toEqual([]);
  heard();
  expect(started()).toEqual(['p0']);
  fleet.advance('p0');
  step();
  wait(30_000);
  expect(step({ type: 'unmeasured', reason: 'gone' }).reason).toContain('gone');
  expect(started()).toEqual(['p0']);
  heard();
  expect(started()).toEqual(['p0', 'p1', 'p2']);
});

it('a stage is over when metrics of its window are known, the last one too', () => {
  const { step, heard, wait, started, fleet } = rig();
  heard();
  fleet.advance('p0');
  expect(heard().reason).toContain('its members are watched for 30 s');
  wait(29_000);
  heard();
  wait(5_000);
  // The window is over, but what is known is older.
  step();
  expect(started()).toEqual(['p0']);
  heard();
  expect(started()).toEqual(['p0', 'p1', 'p2']);
  for (const name of ['p1', 'p2', 'p0', 'p1', 'p2']) fleet.advance(name);
  expect(step().phase).toBe('Progressing');
  wait(30_000);
  expect(heard().phase).toBe('Done');
});

it('failed requests of the last stage are heard before it is over', () => {
  const { step, heard, wait, fleet } = rig();
  heard();
  fleet.advance('p0');
  step();
  wait(30_000);
  heard();
  for (const name of ['p1', 'p2']) fleet.advance(name);
  step();
  wait(10_000);
  expect(heard(3)).toMatchObject({ phase: 'Paused', reason: 'analysis: 3 failed requests, at most 0 allowed' });
});

it('a resume forgives what was counted, also what was asked before it', () => {
  const { step, heard, wait, fleet } = rig();
  heard();
  fleet.advance('p0');
  step();
  expect(heard(5).phase).toBe('Paused');
  const asked = START;
  wait(1_000);
  expect(step({ type: 'resume', by: 'jo' })).toMatchObject({ phase: 'Progressing', judgedFrom: START + 1_000 });
  expect(heard(5, asked).phase).toBe('Progressing');
  expect(heard(1).phase).toBe('Paused');
});

it('the record tells once that the source is away, and once that it is back', () => {
  const { step, fleet } = rig();
  const notes: string[] = [];
  let state = step();
  for (const event of [
    { type: 'unmeasured', reason: 'gone' },
    { type: 'unmeasured', reason: 'still gone' },
    { type: 'measured', measured: { at: START } },
  ] as const) {
    const result = plan(state, fleet.observe(), START, event);
    state = result.state;
    notes.push(...result.entries.map((one) => one.event).filter((one) => /measured/.test(one)));
  }
  expect(notes).toEqual(['unmeasured', 'measured']);
});
