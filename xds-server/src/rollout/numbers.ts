import { globMatches, type IntOrPercent, type RolloutSpec, type RolloutStrategy } from '@sluice/contract';

function scaled(value: IntOrPercent, total: number, round: (n: number) => number): number {
  if (typeof value === 'number') return value;
  return round((Number.parseInt(value, 10) * total) / 100);
}

const clamp = (value: number, min: number, max: number): number => Math.max(min, Math.min(max, value));

/**
 * How many stay on their version. A percentage rounds up, and one below 100% leaves at least one to be upgraded: the rule of
 * CloneSet, and of SidecarSet in Kruise 1.8 (`CalculatePartitionReplicas`). A provider hands over the number and not the percentage.
 */
export function partitionOf({ partition }: RolloutStrategy, total: number): number {
  const value = clamp(scaled(partition, total, Math.ceil), 0, total);
  return typeof partition === 'string' && partition !== '100%' && total > 0 ? Math.min(value, total - 1) : value;
}

/**
 * How many may be unavailable at once. A percentage rounds down, as with Deployment (StatefulSet and SidecarSet round up);
 * below one it is one, or nothing would ever begin.
 */
export function maxUnavailableOf({ maxUnavailable }: RolloutStrategy, total: number): number {
  return Math.max(1, scaled(maxUnavailable, total, Math.floor));
}

/** How many members are to have been started at the end of each stage, of all. A percentage rounds up: no empty stage. */
export function stageGoals(spec: RolloutSpec, names: readonly string[]): number[] {
  const { strategy } = spec;
  const allowed = names.length - partitionOf(strategy, names.length);
  const { canary } = strategy;
  const first = isNamed(canary)
    ? names.filter((name) => inCanary(spec, name)).length
    : scaled(canary, names.length, Math.ceil);
  const goals: number[] = [];
  for (const goal of [first, ...strategy.batches.map((one) => scaled(one, names.length, Math.ceil)), allowed]) {
    const capped = Math.min(goal, allowed);
    // What adds nobody is no stage: a canary of 0, or batches that a small fleet makes equal.
    if (capped > (goals.at(-1) ?? 0)) goals.push(capped);
  }
  return goals.length === 0 ? [0] : goals;
}

function isNamed(canary: RolloutStrategy['canary']): canary is readonly string[] {
  return typeof canary === 'object';
}

/** Whether the canary is of named members and this is one of them. */
export function inCanary({ strategy: { canary } }: RolloutSpec, name: string): boolean {
  return isNamed(canary) && canary.some((glob) => globMatches(glob, name));
}

export function hasNamedCanary({ strategy: { canary } }: RolloutSpec): boolean {
  return isNamed(canary);
}
