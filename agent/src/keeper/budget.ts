import { LINGERS_MS, type Lingering, overBudget } from '../epochs/cost.ts';
import type { FrontContext } from './front.ts';

/** The old epochs of this agent whose cost is known. */
export function lingeringOf({ registry, now }: Pick<FrontContext, 'registry' | 'now'>): Lingering[] {
  return registry.all().flatMap(({ number, drain }) => {
    const { cost, holding } = drain?.verdict ?? {};
    if (drain === undefined || cost === undefined) return [];
    const { budgetMiB } = drain.policy.memory;
    const { privateBytes } = cost;
    const lingers = now() - (drain.orderAppliedAt ?? Number.POSITIVE_INFINITY) >= LINGERS_MS;
    return [{ epoch: number, privateBytes, holding: holding ?? 0, budgetMiB, lingers }];
  });
}

/** Of the lingering epochs some are given up when all together, and `others` of another slot, hold more than policy allows. */
export function weighLingering(
  { registry, now, log }: Pick<FrontContext, 'registry' | 'now' | 'log'>,
  others: readonly Lingering[] = [],
): void {
  const over = overBudget(lingeringOf({ registry, now }), others);
  for (const { number, drain } of registry.all()) {
    if (drain === undefined || drain.overBudget === over.includes(number)) continue;
    drain.overBudget = over.includes(number);
    log(
      'warn',
      drain.overBudget ? 'over the memory budget: this epoch is given up' : 'within the memory budget again',
      { epoch: number, ...(others.length > 0 && { peer: others.map(({ epoch }) => epoch) }) },
    );
    drain.poke();
  }
}
