import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Span, stalledIn } from './stalls.ts';

describe('what had part in a stall', () => {
  it('is what overlaps it, or comes while it is worked off', () => {
    const stalled = stalledIn([[100, 110]]);
    expect(stalled(90, 99)).toBe(false);
    expect(stalled(90, 101)).toBe(true);
    expect(stalled(119, 125)).toBe(true);
    expect(stalled(121, 125)).toBe(false);
    expect(stalledIn([])(0, 1e9)).toBe(false);
  });

  it('is found as by looking at each', () => {
    const spans = fc.array(fc.tuple(fc.nat(200), fc.nat(20)), { maxLength: 20 });
    fc.assert(
      fc.property(spans, fc.nat(220), fc.nat(20), (pairs, from, took) => {
        const stalls = pairs.map(([at, ms]): Span => [at, at + ms]).sort(([a], [b]) => a - b);
        const plainly = stalls.some(([a, b]) => from <= b + (b - a) && from + took >= a);
        expect(stalledIn(stalls)(from, from + took)).toBe(plainly);
      }),
    );
  });
});
