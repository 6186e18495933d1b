import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Lingering, overBudget } from './cost.ts';

const MiB = 1024 * 1024;
const epoch = (n: number, mib: number, holding: number, budgetMiB = 100): Lingering => ({
  epoch: n,
  privateBytes: mib * MiB,
  holding,
  budgetMiB,
  lingers: true,
});

describe('overBudget, one slot', () => {
  it('nor one whose drain has only begun', () => {
    expect(overBudget([{ ...epoch(1, 200, 5), lingers: false }, epoch(2, 10, 9)])).toEqual([2]);
  });

  it('gives nothing up within the budget', () => {
    expect(overBudget([epoch(1, 40, 5), epoch(2, 60, 1)])).toEqual([]);
  });

  it('gives up the cheapest first, and no more than needed', () => {
    expect(overBudget([epoch(1, 40, 5), epoch(2, 40, 1), epoch(3, 40, 9)])).toEqual([2]);
    expect(overBudget([epoch(1, 90, 5), epoch(2, 90, 1), epoch(3, 90, 5)])).toEqual([2, 1]);
  });

  it('never one whose policy has no budget', () => {
    expect(overBudget([epoch(1, 500, 0, 0), epoch(2, 10, 3)])).toEqual([2]);
    expect(overBudget([epoch(1, 500, 0, 0)])).toEqual([]);
  });
});

describe('overBudget, two slots', () => {
  it('the budget is one, and each gives up its own alone', () => {
    const [old, young] = [epoch(1, 60, 9), epoch(2, 60, 1)];
    expect([overBudget([old]), overBudget([young])]).toEqual([[], []]);
    expect([overBudget([old], [young]), overBudget([young], [old])]).toEqual([[1], []]);
  });

  it('what the other one holds counts, though it is never given up', () => {
    expect(overBudget([epoch(2, 60, 1)], [epoch(1, 60, 9, 0)])).toEqual([2]);
  });

  /** Epochs of one proxy, each in one of two slots; all under one policy. */
  const slots = fc
    .array(
      fc.record({
        mib: fc.integer({ min: 1, max: 200 }),
        holding: fc.nat(9),
        lingers: fc.boolean(),
        second: fc.boolean(),
      }),
      { minLength: 1, maxLength: 8 },
    )
    .map((all) =>
      all.map(({ mib, holding, lingers, second }, n) => ({ second, one: { ...epoch(n, mib, holding, 150), lingers } })),
    )
    .map((all) => ({
      a: all.filter(({ second }) => !second).map(({ one }) => one),
      b: all.filter(({ second }) => second).map(({ one }) => one),
    }))
    .filter(({ a, b }) => a.length > 0 && b.length > 0);
  const bytes = (all: readonly Lingering[]) => all.reduce((sum, one) => sum + one.privateBytes, 0);

  it('from the same data both together give up the oldest, and no more than one agent alone would have to', () => {
    fc.assert(
      fc.property(slots, ({ a, b }) => {
        const given = [...overBudget(a, b), ...overBudget(b, a)].sort((x, y) => x - y);
        const able = [...a, ...b].filter(({ lingers }) => lingers).sort((x, y) => x.epoch - y.epoch);
        expect(given).toEqual(able.slice(0, given.length).map((one) => one.epoch));
        const left = [...a, ...b].filter((one) => !given.includes(one.epoch));
        if (given.length < able.length) expect(bytes(left)).toBeLessThanOrEqual(150 * MiB);
        const last = able[given.length - 1];
        if (last) expect(bytes([...left, last])).toBeGreaterThan(150 * MiB);
      }),
    );
  });

  it('with different counts of what holds something, as two looks have them, no other one is given up', () => {
    fc.assert(
      fc.property(slots, fc.func(fc.nat(9)), ({ a, b }, count) => {
        const later = (all: readonly Lingering[]) => all.map((one) => ({ ...one, holding: count(one.epoch) }));
        expect(overBudget(b, later(a))).toEqual(overBudget(later(b), a));
      }),
    );
  });

  it('with a newer cost the one that sees more gives up what comes next, never a younger one beside an older one kept', () => {
    fc.assert(
      fc.property(slots, fc.func(fc.nat(50)), ({ a, b }, grown) => {
        const later = (all: readonly Lingering[]) =>
          all.map((one) => ({ ...one, privateBytes: one.privateBytes + grown(one.epoch) * MiB }));
        const alone = (x: readonly Lingering[], y: readonly Lingering[]) => [...overBudget(x, y), ...overBudget(y, x)];
        const most = Math.max(alone(a, b).length, alone(later(a), later(b)).length);
        // One looked before, the other one after: together no more than the later data call for.
        expect([...overBudget(a, b), ...overBudget(later(b), later(a))].length).toBeLessThanOrEqual(most);
      }),
    );
  });
});
