import { type Connection, DEFAULT_POLICY, type DrainPolicy } from '@sluice/contract';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ageStep, creditAfter, markStep, paceMode, sweepAge } from './plan.ts';

const connection = (id: number, openedAt: number, more: Partial<Connection> = {}): Connection => ({
  epoch: 1,
  id: String(id),
  peer: `10.0.0.${id % 250}:1`,
  local: '10.0.0.1:80',
  listener: 'in',
  protocol: 'http2',
  openedAt,
  ...more,
});
const all = { envoy: '1.40.0', ages: true, cutoff: true, marks: true };
const alone: DrainPolicy = {
  ...DEFAULT_POLICY,
  rules: [{ name: 'probes', match: { listeners: ['p'] }, nudge: false }],
};
const idlest: DrainPolicy = { ...DEFAULT_POLICY, pacing: { ...DEFAULT_POLICY.pacing, order: 'idlest' } };

describe('paceMode', () => {
  it.each([
    [DEFAULT_POLICY, 100, all, 'age'],
    [DEFAULT_POLICY, 0, all, 'all'],
    [DEFAULT_POLICY, 100, { ...all, ages: false }, 'sweep'],
    // What obeys marks is pushed only with an order that needs it.
    [DEFAULT_POLICY, 100, { ...all, cutoff: false }, 'all'],
    [DEFAULT_POLICY, 100, { envoy: '1.40.0', ages: true, cutoff: false, marks: false }, 'all'],
    [{ ...DEFAULT_POLICY, http2: { goaway: false } }, 100, all, 'none'],
    [alone, 100, all, 'mark'],
    [alone, 0, all, 'mark'],
    [alone, 100, { ...all, marks: false }, 'none'],
    [idlest, 100, all, 'mark'],
    [idlest, 100, { ...all, marks: false }, 'age'],
    [{ ...idlest, http2: { goaway: false } }, 100, { ...all, marks: false }, 'none'],
  ] as const)('%# %s', (policy, perSecond, can, mode) => {
    expect(paceMode(policy as DrainPolicy, perSecond, can).mode).toBe(mode);
  });
});

it.each(['1.35.0', '1.41.0', '2.0.0', ''])('of Envoy %j, which nobody has looked at, nobody is told', (envoy) => {
  for (const policy of [DEFAULT_POLICY, alone, idlest, { ...alone, http2: { goaway: false } }]) {
    for (const perSecond of [0, 100]) {
      expect(paceMode(policy, perSecond, { ...all, envoy }).mode).toBe('none');
    }
  }
  const open = [connection(1, 100), connection(2, 200, { protocol: 'http1' })];
  expect(ageStep(open, { toldBefore: 0, credit: 5 }, 36, envoy).told).toEqual([]);
  expect(markStep(open, idlest, 5, true, envoy).told).toEqual([]);
});

describe('ageStep', () => {
  it('tells the oldest, as many as there are turns, and what was born with the last of them', () => {
    const open = [connection(1, 100), connection(2, 200), connection(3, 230), connection(4, 900)];
    const step = ageStep(open, { toldBefore: Number.NEGATIVE_INFINITY, credit: 2.5 }, 36, '1.40.0');
    expect(step).toEqual({ toldBefore: 236, told: ['1', '2', '3'], credit: -0.5, done: false });
  });

  it('passes over sessions, which hear nothing', () => {
    const open = [connection(1, 100, { protocol: 'upgrade' }), connection(2, 200, { protocol: 'tcp' })];
    expect(ageStep(open, { toldBefore: 0, credit: 5 }, 36, '1.40.0')).toMatchObject({ told: [], done: true });
  });

  it('keeps to the rate over any stretch, whatever the ages and the ticks', () => {
    const ages = fc.array(fc.integer({ min: 0, max: 600_000 }), { minLength: 1, maxLength: 400 });
    const ticks = fc.array(fc.integer({ min: 20, max: 400 }), { minLength: 5, maxLength: 200 });
    fc.assert(
      fc.property(ages, ticks, fc.integer({ min: 1, max: 500 }), (births, waits, perSecond) => {
        const open = births.map((at, n) => connection(n, at));
        let state = { toldBefore: Number.NEGATIVE_INFINITY, credit: 1 };
        let elapsed = 0;
        const told = new Set<string>();
        for (const ms of waits) {
          elapsed += ms;
          const step = ageStep(open, { ...state, credit: creditAfter(state.credit, perSecond, ms) }, 0, '1.40.0');
          for (const id of step.told) {
            expect(told.has(id)).toBe(false);
            told.add(id);
          }
          state = step;
          // Of one instant all go together: that many may be told ahead of their turns.
          const together = Math.max(...[...count(births).values()]);
          expect(told.size).toBeLessThanOrEqual(1 + (perSecond * elapsed) / 1_000 + together);
        }
        // Nobody younger is told before somebody older.
        const oldestWaiting = Math.min(...open.filter((c) => !told.has(c.id)).map((c) => c.openedAt));
        for (const one of open) if (told.has(one.id)) expect(one.openedAt).toBeLessThanOrEqual(oldestWaiting);
      }),
      { numRuns: 80 },
    );
  });
});

function count(values: readonly number[]): Map<number, number> {
  const counts = new Map<number, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

describe('markStep', () => {
  it('takes the idlest first where policy says so', () => {
    const open = [
      connection(1, 0, { lastActivityAt: 900 }),
      connection(2, 50, { lastActivityAt: 100 }),
      connection(3, 60),
    ];
    expect(markStep(open, idlest, 2, false, '1.40.0').told).toEqual(['3', '2']);
    expect(markStep(open, DEFAULT_POLICY, 2, false, '1.40.0').told).toEqual(['1', '2']);
  });

  it('leaves alone whom policy leaves alone, and says that there are some', () => {
    const open = [connection(1, 0, { listener: 'p' }), connection(2, 0), connection(3, 0, { marked: true })];
    expect(markStep(open, alone, 9, false, '1.40.0')).toMatchObject({ told: ['2'], done: true, exempt: true });
    expect(markStep(open.slice(1), alone, 9, true, '1.40.0')).toMatchObject({ told: ['2'], exempt: false });
  });
});

it('a sweep falls evenly to nothing, and takes as long as the rate says', () => {
  expect(sweepAge(0, 100, 60_000)).toEqual({ ageMs: 60_000, done: false });
  expect(sweepAge(50, 100, 60_000)).toEqual({ ageMs: 30_000, done: false });
  expect(sweepAge(100, 100, 60_000)).toEqual({ ageMs: 0, done: true });
});
