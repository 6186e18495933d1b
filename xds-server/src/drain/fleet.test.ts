import { DEFAULT_POLICY } from '@sluice/contract';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { firstShare, fleetDrains, fleetShares } from './fleet.ts';
import type { UpgradeState } from './state.ts';

it('a drain begins with its share beside those that drain already', () => {
  const pacing = { ...DEFAULT_POLICY.pacing, perSecond: 100, scope: 'fleet' as const };
  const state = (id: string, more: object = {}) =>
    ({ id, phase: 'Draining', order: {}, policy: { ...DEFAULT_POLICY, pacing }, ...more }) as unknown as UpgradeState;
  const verdict = { total: 300, pacing: { told: 0, left: 300, perSecond: 100 } };
  const others = fleetDrains([state('a', { verdict }), state('b', { verdict }), state('c')]);
  expect(firstShare(others, state('d'))).toBe(25);
  expect(firstShare(others.slice(2), state('c'))).toBeUndefined();
  expect(firstShare(others, { ...state('d'), policy: DEFAULT_POLICY })).toBeUndefined();
});

describe('fleetShares', () => {
  it('shares one rate by what is left to do', () => {
    const shares = fleetShares([
      { id: 'a', perSecond: 100, left: 300 },
      { id: 'b', perSecond: 100, left: 100 },
    ]);
    expect(Object.fromEntries(shares)).toEqual({ a: 75, b: 25 });
  });

  it('gives one that has not said yet what the average has, and nothing to one that is done', () => {
    const shares = fleetShares([
      { id: 'a', perSecond: 90, left: 50 },
      { id: 'b', perSecond: 90 },
      { id: 'c', perSecond: 90, left: 0, share: 30 },
    ]);
    expect(Object.fromEntries(shares)).toEqual({ a: 60, b: 30 });
  });

  it('says only what is worth an order', () => {
    expect(fleetShares([{ id: 'a', perSecond: 100, left: 5, share: 95 }]).size).toBe(0);
    expect(fleetShares([{ id: 'a', perSecond: 100, left: 5, share: 50 }]).get('a')).toBe(100);
  });

  it('never gives more than there is, but for the least that each must have', () => {
    const drain = fc.record({ left: fc.option(fc.nat(10_000), { nil: undefined }) });
    fc.assert(
      fc.property(
        fc.array(drain, { minLength: 1, maxLength: 50 }),
        fc.integer({ min: 1, max: 5_000 }),
        (all, perSecond) => {
          const drains = all.map(({ left }, n) => ({ id: String(n), perSecond, ...(left !== undefined && { left }) }));
          const sum = [...fleetShares(drains).values()].reduce((a, b) => a + b, 0);
          // A tenth each by rounding and by the least.
          expect(sum).toBeLessThanOrEqual(perSecond + drains.length * 0.15 + 0.001);
        },
      ),
    );
  });
});
