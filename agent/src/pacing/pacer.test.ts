import { type Connection, DEFAULT_POLICY, type DrainPolicy } from '@sluice/contract';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { ageOfPressure, PRESET_DURATION_MS } from '../levers/pressure.ts';
import { Pacer, type PacerOptions } from './pacer.ts';
import type { Load } from './usual.ts';

const START = 1_700_000_000_000;
const connection = (id: number, ageMs: number, more: Partial<Connection> = {}): Connection => ({
  epoch: 1,
  id: String(id),
  peer: `10.0.0.1:${id}`,
  local: '10.0.0.1:80',
  listener: 'in',
  protocol: 'http1',
  openedAt: START - ageMs,
  ...more,
});
const alone: DrainPolicy = {
  ...DEFAULT_POLICY,
  rules: [{ name: 'probes', match: { listeners: ['p'] }, nudge: false }],
};

interface Given extends Partial<Omit<PacerOptions, 'hands'>> {
  readonly connections?: readonly Connection[];
  readonly open?: () => number;
  readonly load?: () => Promise<Load | undefined>;
}

/** A pacer and what it did: the cut-off age that stands now, and who was marked. */
function pacer({ connections = [], open = () => connections.length, load, ...more }: Given) {
  const did = { pressure: undefined as number | undefined, marked: [] as string[], fails: false };
  const made = new Pacer({
    policy: DEFAULT_POLICY,
    perSecond: 10,
    floorAgeMs: 0,
    can: { envoy: '1.40.0', ages: true, cutoff: true, marks: true },
    durationMs: PRESET_DURATION_MS,
    bornAt: START - 100_000,
    log: () => {},
    now: Date.now,
    ...more,
    hands: {
      connections: () => connections,
      open,
      setPressure: (pressure) => {
        if (did.fails) throw new Error('ENOSPC');
        did.pressure = pressure;
      },
      mark: (ids) => did.marked.push(...ids),
      ...(load && { load }),
      changed: () => {},
    },
  });
  return { made, did, cutoff: () => ageOfPressure(did.pressure ?? 0, PRESET_DURATION_MS) };
}

beforeEach(() => {
  vi.useFakeTimers({ now: START });
});
afterEach(() => {
  vi.useRealTimers();
});

const tenSecondsApart = Array.from({ length: 20 }, (_, n) => connection(n, 300_000 - n * 10_000));

it('a cut-off that could not be taken back is taken back with the next turn', async () => {
  const { made, did, cutoff } = pacer({ connections: tenSecondsApart, perSecond: 1 });
  made.start();
  did.fails = true;
  await vi.advanceTimersByTimeAsync(60);
  did.fails = false;
  const exposed = cutoff() as number;
  await vi.advanceTimersByTimeAsync(100);
  expect(cutoff()).toBeGreaterThan(exposed + 4_000);
  made.stop();
});

it('one that is stopped tells nobody more', async () => {
  const { made, cutoff } = pacer({ connections: tenSecondsApart });
  made.start();
  await vi.advanceTimersByTimeAsync(1);
  made.stop();
  const [, second] = tenSecondsApart.filter((one) => !made.told.has(one.id));
  // By the time somebody else has taken over, the cut-off has not come down to the next one.
  expect(Date.now() + 4_000 - (second?.openedAt ?? 0)).toBeLessThan(cutoff() ?? 0);
});

it('marks begin with a cut-off that tells nobody, whatever an order before has left', async () => {
  const { made, did } = pacer({ policy: alone, connections: [connection(1, 9_000), connection(2, 9_000)] });
  did.pressure = 0.99;
  made.start();
  expect(did.pressure).toBe(0);
  made.stop();
});

it('after a restart the marked ones and those beyond the cut-off have been told', async () => {
  const marked = pacer({
    policy: alone,
    connections: [connection(1, 9_000, { marked: true }), connection(2, 9_000, { listener: 'p' })],
  });
  marked.made.start();
  expect(marked.made.annotate(connection(1, 9_000)).toldAt).toBe(START);
  expect(marked.made.last(connection(2, 9_000, { listener: 'p' })).toldAt).toBeUndefined();
  expect(marked.made.progress()).toMatchObject({ told: 1, left: 0 });
  marked.made.stop();

  const byAge = pacer({ connections: tenSecondsApart, toldBefore: START - 255_000, perSecond: 1 });
  byAge.made.start();
  await vi.advanceTimersByTimeAsync(1);
  expect(byAge.made.progress()).toMatchObject({ told: 6, left: 14 });
  byAge.made.stop();
});

it('one that leaves with its next response, before anybody looks, has been told all the same', () => {
  const { made } = pacer({ policy: alone, connections: [connection(1, 9_000)] });
  made.start();
  expect(made.last(connection(1, 9_000))).toMatchObject({ toldAt: START, marked: true });
  made.stop();
});

it('what was told under an order before keeps its moment', () => {
  const { made } = pacer({ perSecond: 0, connections: [connection(1, 9_000)], told: new Map([['1', START - 5_000]]) });
  made.start();
  expect(made.annotate(connection(1, 9_000)).toldAt).toBe(START - 5_000);
  expect(made.progress()).toMatchObject({ told: 1, left: 0 });
});

it('a sweep keeps to the rate although those that were told leave', async () => {
  // 100 connections at 10 a second; each leaves as it is told.
  const began = Date.now();
  const open = () => Math.max(1, 100 - Math.floor((Date.now() - began) / 100));
  const { made, cutoff } = pacer({ can: { envoy: '1.40.0', ages: false, cutoff: true, marks: false }, open });
  made.start();
  await vi.advanceTimersByTimeAsync(5_000);
  expect(made.paced).toBe(true);
  expect(cutoff()).toBeGreaterThan(48_000);
  expect(made.progress()).toMatchObject({ told: 50, left: 50 });
  await vi.advanceTimersByTimeAsync(5_100);
  expect(made.paced).toBe(false);
  expect(made.progress()).toMatchObject({ told: 100, left: 0 });
});

it('a new share of the rate keeps what strain has taken, and a load that can not be asked gives it back', async () => {
  let load: Load | undefined = { seconds: 1, busy: 1 };
  const { made } = pacer({ perSecond: 2, connections: tenSecondsApart, load: async () => load });
  made.start();
  await vi.advanceTimersByTimeAsync(1_050);
  expect(made.progress()).toMatchObject({ perSecond: 1 });
  made.setRate(1);
  expect(made.progress().perSecond).toBe(0.5);
  load = undefined;
  await vi.advanceTimersByTimeAsync(7_000);
  expect(made.progress()).toMatchObject({ perSecond: 1 });
  expect(made.progress().strain).toBeUndefined();
  made.stop();
});
