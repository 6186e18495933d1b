import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type Span, stalledIn } from './stalls.ts';

describe('what had part in a stall', () => {
  it('is what overlaps it, or comes while it is worked off', () => {
    const stalled = stalledIn([[100, 110]]);
    assert.equal(stalled(90, 99), false);
    assert.equal(stalled(90, 101), true);
    assert.equal(stalled(119, 125), true);
    assert.equal(stalled(121, 125), false);
    assert.equal(stalledIn([])(0, 1e9), false);
  });

  it('is found as by looking at each', () => {
    const spans = fc.array(fc.tuple(fc.nat(200), fc.nat(20)), { maxLength: 20 });
    fc.assert(
      fc.property(spans, fc.nat(220), fc.nat(20), (pairs, from, took) => {
        const stalls = pairs.map(([at, ms]): Span => [at, at + ms]).sort(([a], [b]) => a - b);
        const plainly = stalls.some(([a, b]) => from <= b + (b - a) && from + took >= a);
        assert.equal(stalledIn(stalls)(from, from + took), plainly);
      }),
    );
  });
});
