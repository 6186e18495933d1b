import { LINGERS_MS, overBudget } from '../epochs/cost.ts';
import type { FrontContext } from './front.ts';

/** Of the lingering epochs the cheapest are given up when all together hold more than policy allows. */
export function weighLingering({ registry, now, log }: Pick<FrontContext, 'registry' | 'now' | 'log'>): void {
  const lingering = registry.all().flatMap(({ number, drain }) => {
    const { cost, holding } = drain?.verdict ?? {};
    if (drain === undefined || cost === undefined) return [];
    const { budgetMiB } = drain.policy.memory;
    const { privateBytes } = cost;
    const lingers = now() - (drain.orderAppliedAt ?? Number.POSITIVE_INFINITY) >= LINGERS_MS;
    return [{ epoch: number, privateBytes, holding: holding ?? 0, since: number, budgetMiB, lingers }];
  });
  const over = overBudget(lingering);
  for (const { number, drain } of registry.all()) {
    if (drain === undefined || drain.overBudget === over.includes(number)) continue;
    drain.overBudget = over.includes(number);
    log(
      'warn',
      drain.overBudget ? 'over the memory budget: this epoch is given up' : 'within the memory budget again',
      { epoch: number },
    );
    drain.poke();
  }
}
