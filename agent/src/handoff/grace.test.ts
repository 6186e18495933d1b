import fc from 'fast-check';
import { expect, test } from 'vitest';
import { endOf, lingerUntil, waitUntil, whyCut } from './grace.ts';

test('the wait ends within the grace and within the own bound, and never before it began', () => {
  fc.assert(
    fc.property(
      fc.nat(1e12),
      fc.option(fc.nat(1e7), { nil: undefined }),
      fc.nat(1e7),
      fc.constantFrom('hold' as const, 'drain' as const),
      (at, graceMs, drainMs, end) => {
        const { until, byGrace } = waitUntil({ at, graceMs, drainMs }, end);
        expect(until).toBeGreaterThanOrEqual(at);
        if (end === 'drain' || graceMs === undefined) expect(until).toBeLessThanOrEqual(at + drainMs);
        if (graceMs !== undefined) expect(until).toBeLessThanOrEqual(at + graceMs);
        if (byGrace) expect(graceMs).toBeDefined();
      },
    ),
  );
});

test.each([
  ['drain', { at: 1_000, drainMs: 600_000 }, 601_000, false],
  ['drain', { at: 1_000, graceMs: 30_000, drainMs: 600_000 }, 26_000, true],
  ['drain', { at: 1_000, graceMs: 4_000, drainMs: 600_000 }, 4_000, true],
  ['drain', { at: 1_000, graceMs: 3_600_000, drainMs: 5_000 }, 6_000, false],
  // The user's short drain of a Pod's end is no reason to cut an old container short.
  ['hold', { at: 1_000, graceMs: 3_600_000, drainMs: 5_000 }, 3_596_000, true],
  ['hold', { at: 1_000, drainMs: 5_000 }, 6_000, false],
] as const)('%s: %j waits until %d', (end, asked, until, byGrace) => {
  expect(waitUntil(asked, end)).toEqual({ until, byGrace });
});

test('why connections were cut says by which bound', () => {
  const asked = { at: 0, graceMs: 30_000, drainMs: 600_000 };
  expect(whyCut(asked, true)).toContain('termination grace of 30 s');
  expect(whyCut(asked, false)).toContain('600 s');
});

test('an end is a hold once the peer serves, an ordinary drain otherwise, and undecided while the peer takes over', () => {
  expect(endOf({ serving: false, taking: false })).toBe('hold');
  expect(endOf({ serving: true, taking: true })).toBe('wait');
  expect(endOf({ serving: true, taking: false })).toBe('drain');
});

test('what serves goes on for a moment after the hook, which is not taken from its drain unless the grace is', () => {
  expect(lingerUntil({ at: 1_000, graceMs: 30_000, drainMs: 5_000 })).toBe(6_000);
  expect(lingerUntil({ at: 1_000, graceMs: 4_000, drainMs: 5_000 })).toBe(2_000);
  expect(lingerUntil({ at: 1_000, drainMs: 5_000 })).toBe(1_000);
  const asked = { at: 1_000, drainAt: 6_000, drainMs: 5_000 };
  expect(waitUntil({ ...asked, graceMs: 30_000 }, 'drain')).toEqual({ until: 11_000, byGrace: false });
  expect(waitUntil({ ...asked, graceMs: 10_000 }, 'drain')).toEqual({ until: 8_500, byGrace: true });
});
