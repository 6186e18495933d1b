import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { estimateEnds, fade, type Lifetimes, NO_LIFETIMES, observeEnd } from './estimate.ts';

const many = (kind: string, lasted: readonly number[], before: Lifetimes = NO_LIFETIMES) =>
  lasted.reduce((all, ms) => observeEnd(all, kind, ms), before);
const steps = <T>(n: number, of: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => of(i));

describe('estimateEnds', () => {
  it('knows nothing but the age at first: what lasted so long lasts as long again', () => {
    const { each, observed } = estimateEnds([{ kind: 'tcp', forMs: 60_000 }], NO_LIFETIMES);
    expect(observed).toBe(0);
    expect(each[0]?.likely).toBeGreaterThan(40_000);
    expect(each[0]?.likely).toBeLessThan(90_000);
    expect(each[0]?.late).toBeGreaterThan(300_000);
  });

  it('learns from those that ended', () => {
    const seen = many(
      'ws',
      steps(200, (i) => 20_000 + i * 100),
    );
    const young = estimateEnds([{ kind: 'ws', forMs: 1_000 }], seen);
    expect(young.each[0]?.likely).toBeGreaterThan(22_000);
    expect(young.each[0]?.likely).toBeLessThan(38_000);
    // At 35 s the end is near, whatever its age says.
    expect(estimateEnds([{ kind: 'ws', forMs: 35_000 }], seen).each[0]?.likely).toBeLessThan(12_000);
  });

  it('counts those that live on: ten that ended early do not speak for a thousand that did not', () => {
    const seen = many(
      'h',
      steps(10, () => 1_000),
    );
    const open = steps(1_000, () => ({ kind: 'h', forMs: 60_000 }));
    expect(estimateEnds(open, seen).each[0]?.likely).toBeGreaterThan(30_000);
  });

  it('ends the whole with the last one, and never after what bounds it', () => {
    const open = steps(50, () => ({ kind: 'h1', forMs: 500, atMostMs: 10_000 }));
    const { each, all } = estimateEnds(open, NO_LIFETIMES);
    expect(all.likely).toBeGreaterThanOrEqual(each[0]?.likely ?? 0);
    expect(all.late).toBeLessThanOrEqual(10_100);
  });

  it('is over at once when nothing is open', () => {
    expect(estimateEnds([], NO_LIFETIMES).all).toEqual({ likely: 0, late: 0 });
  });

  it('is ordered: likely before late, each before all, a later start a later end', () => {
    const duration = fc.integer({ min: 0, max: 3_600_000 });
    fc.assert(
      fc.property(
        fc.array(duration, { maxLength: 30 }),
        fc.array(duration, { minLength: 1, maxLength: 20 }),
        duration,
        (ended, ages, later) => {
          const seen = many('k', ended);
          const { each, all } = estimateEnds(
            ages.map((forMs) => ({ kind: 'k', forMs })),
            seen,
          );
          for (const one of each) {
            expect(one.late ?? Number.POSITIVE_INFINITY).toBeGreaterThanOrEqual(one.likely ?? 0);
            expect((all.likely ?? Number.POSITIVE_INFINITY) * 1.03 + 20).toBeGreaterThanOrEqual(one.likely ?? 0);
          }
          const now = estimateEnds([{ kind: 'k', forMs: 0 }], seen).each[0]?.likely ?? Number.POSITIVE_INFINITY;
          const then =
            estimateEnds([{ kind: 'k', forMs: 0, startsInMs: later }], seen).each[0]?.likely ??
            Number.POSITIVE_INFINITY;
          expect(then * 1.03 + 20).toBeGreaterThanOrEqual(now);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('fades and stays bounded', () => {
    const seen = fade(many('a', [1_000, 1_000]));
    expect(seen.ended.a?.reduce((a, b) => a + b, 0)).toBe(1);
    const crowd = steps(500, (i) => i).reduce((all, i) => observeEnd(all, `k${i}`, 1), NO_LIFETIMES);
    expect(Object.keys(crowd.ended)).toHaveLength(256);
  });
});
