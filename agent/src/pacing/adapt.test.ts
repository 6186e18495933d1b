import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { adaptRate } from './adapt.ts';
import { quantile } from './load.ts';

describe('adaptRate', () => {
  const full = { perSecond: 100 };

  it('halves the rate under strain and says why', () => {
    expect(adaptRate(full, 100, { refused: 3 }, { refused: 5 })).toEqual({
      perSecond: 50,
      strain: 'the new epoch or its upstreams refused 2',
    });
    expect(adaptRate(full, 100, undefined, { busy: 0.97 }).perSecond).toBe(50);
    expect(adaptRate(full, 100, undefined, { latencyMs: 90, usualMs: 20 }).perSecond).toBe(50);
  });

  it('is not moved by what is usual, or by what is not known', () => {
    expect(adaptRate(full, 100, undefined, {})).toEqual(full);
    expect(adaptRate(full, 100, undefined, { refused: 7, busy: 0.5, latencyMs: 15, usualMs: 1 })).toEqual(full);
  });

  it('comes back by a tenth of the whole, and names the strain until it has', () => {
    const slow = adaptRate(full, 100, undefined, { busy: 1 });
    expect(adaptRate(slow, 100, {}, {})).toEqual({ perSecond: 60, strain: slow.strain });
    expect(adaptRate({ perSecond: 95, strain: 'x' }, 100, {}, {})).toEqual(full);
  });

  it('stays within one a second and what policy allows', () => {
    const load = fc.record({ busy: fc.double({ min: 0, max: 1, noNaN: true }), refused: fc.nat(3) });
    fc.assert(
      fc.property(fc.array(load, { maxLength: 60 }), fc.integer({ min: 1, max: 1_000 }), (loads, cap) => {
        let rate = { perSecond: cap };
        for (const [n, now] of loads.entries()) {
          rate = adaptRate(rate, cap, loads[n - 1], now);
          expect(rate.perSecond).toBeGreaterThanOrEqual(1);
          expect(rate.perSecond).toBeLessThanOrEqual(cap);
        }
      }),
    );
  });
});

it('reads the largest P90 of the connection managers, not the admin’s', () => {
  const text = [
    'http.admin.downstream_rq_time: P0(1,1) P90(99,99) P100(1,1)',
    'http.in.downstream_rq_time: P0(nan,0) P90(nan,4.5) P100(nan,9)',
    'http.out.downstream_rq_time: P0(1,1) P90(7.2,3) P100(9,9)',
  ].join('\n');
  expect(quantile(text, 'interval')).toBe(7.2);
  expect(quantile(text, 'cumulative')).toBe(4.5);
  expect(quantile('', 'interval')).toBeUndefined();
});
