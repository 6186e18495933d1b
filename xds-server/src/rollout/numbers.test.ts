import { DEFAULT_STRATEGY, parseSelector, parseStrategy } from '@sluice/contract';
import { describe, expect, it } from 'vitest';
import { rolloutSpec } from '../testing/rollout-spec.ts';
import { maxUnavailableOf, partitionOf, stageGoals } from './numbers.ts';

describe('numbers', () => {
  it('rounds a partition up and leaves one to be upgraded, maxUnavailable down and at least one', () => {
    const of = (partition: number | string, total: number) => partitionOf({ ...DEFAULT_STRATEGY, partition }, total);
    expect([of('10%', 5), of('99%', 5), of('100%', 5), of(9, 5), of('50%', 0), of('0%', 5)]).toEqual([
      1, 4, 5, 5, 0, 0,
    ]);
    const max = (maxUnavailable: number | string, total: number) =>
      maxUnavailableOf({ ...DEFAULT_STRATEGY, maxUnavailable }, total);
    expect([max('25%', 10), max('10%', 5), max(2, 20), max('100%', 3)]).toEqual([2, 1, 2, 3]);
  });

  it('makes stages that each add somebody and end with all but the partition', () => {
    const names = Array.from({ length: 10 }, (_, n) => `p${n}`);
    expect(stageGoals(rolloutSpec({ batches: ['5%', '50%'], partition: 2 }), names)).toEqual([1, 5, 8]);
    expect(stageGoals(rolloutSpec({ canary: 0 }), names)).toEqual([10]);
    expect(stageGoals(rolloutSpec({ canary: ['p7', 'p8'] }), names)).toEqual([2, 10]);
    expect(stageGoals(rolloutSpec({ partition: '100%' }), names)).toEqual([0]);
  });

  it('refuses what can not be', () => {
    expect(() => parseStrategy({ maxUnavailable: '0%' })).toThrow(/strategy.maxUnavailable/);
    expect(() => parseStrategy({ partition: '120%' })).toThrow(/strategy.partition/);
    expect(() => parseStrategy({ batchs: [] })).toThrow(/strategy.batchs/);
    expect(() => parseSelector({})).toThrow(/selector: expected proxies or labels/);
    expect(parseStrategy({ canary: ['edge-1'], batches: ['50%'] })).toMatchObject({ canary: ['edge-1'] });
  });
});
