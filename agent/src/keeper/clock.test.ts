import type { Report } from '@sluice/contract';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { drainClock, onClock } from './clock.ts';

const START = 1_700_000_000_000;
const HOUR = 3_600_000;

/** A machine whose wall clock can be set, and a drain that begins and ends. */
function machine() {
  const its = { ms: 5_000, by: START - 5_000, drains: false };
  const wall = () => its.ms + its.by;
  const clock = drainClock(
    () => its.drains,
    wall,
    () => its.ms,
  );
  return { its, wall, clock };
}

it('is the wall clock while nothing drains, also after it was set', () => {
  const { its, wall, clock } = machine();
  expect(clock.now()).toBe(START);
  its.by += HOUR;
  expect(clock.now()).toBe(wall());
  expect(clock.fromWall(wall())).toBe(wall());
});

it('goes on evenly while something drains, whatever the wall clock is set to', () => {
  const steps = fc.array(fc.record({ ms: fc.nat(60_000), by: fc.integer({ min: -24 * HOUR, max: 24 * HOUR }) }));
  fc.assert(
    fc.property(steps, (steps) => {
      const { its, wall, clock } = machine();
      clock.now();
      its.drains = true;
      const begun = its.ms;
      for (const { ms, by } of steps) {
        its.ms += ms;
        its.by += by;
        expect(clock.now()).toBe(START + its.ms - begun);
      }
      its.drains = false;
      expect(clock.now()).toBe(wall());
    }),
  );
});

it.each([HOUR, -HOUR])(
  'what the filter tells after a step of %i ms is put on it, and what it told of before stays',
  (by) => {
    const { its, wall, clock } = machine();
    clock.now();
    its.drains = true;
    its.ms += 10_000;
    const openedAt = START - 60_000;
    its.by += by;
    clock.now();
    its.ms += 3_000;
    const report = {
      now: wall(),
      records: [
        { kind: 'open', id: '1', openedAt, lastActivityAt: wall() - 500 },
        { kind: 'route', id: '1', route: 'r' },
      ],
    } as unknown as Report;
    expect(onClock(report, clock)).toEqual({
      now: START + 13_000,
      records: [
        { kind: 'open', id: '1', openedAt, lastActivityAt: START + 12_500 },
        { kind: 'route', id: '1', route: 'r' },
      ],
    });
  },
);

it('a clock that is set back to where it was is no step any more', () => {
  const { its, wall, clock } = machine();
  clock.now();
  its.drains = true;
  its.by += HOUR;
  clock.now();
  its.by -= HOUR;
  expect(clock.now()).toBe(wall());
  expect(clock.fromWall(wall())).toBe(wall());
});
