import type { RolloutCounts, RolloutMember, RolloutSpec } from '@sluice/contract';
import type { Measured, RolloutState } from './state.ts';

/** What the agents' words of its members, and a source of metrics if there is one, sum up to. */
export function countsOf(members: readonly RolloutMember[], measured?: Measured): RolloutCounts {
  const sum = (of: (member: RolloutMember) => number): number => members.reduce((all, one) => all + of(one), 0);
  return {
    failedUpgrades: sum((one) => one.failures),
    crashes: sum((one) => one.crashes),
    cutConnections: sum((one) => one.cut),
    ...(measured?.failedRequests !== undefined && { failedRequests: measured.failedRequests }),
    ...(measured?.p99Ms !== undefined && { p99Ms: measured.p99Ms }),
  };
}

/** Whether the limits can be judged by the agents' word alone. */
export function needsMetrics({ analysis }: RolloutSpec): boolean {
  return analysis.maxFailedRequests !== null || analysis.maxP99Ms !== null;
}

/** The first limit that is passed, in a person's words. undefined: all is well. */
export function judge({ spec, members, measured, baseline }: RolloutState): string | undefined {
  const { analysis } = spec;
  const counts = countsOf(members, measured);
  const since = (key: 'failedUpgrades' | 'crashes' | 'cutConnections' | 'failedRequests'): number | undefined => {
    const now = counts[key];
    return now === undefined ? undefined : now - (baseline[key] ?? 0);
  };
  const checks: readonly [number | undefined, number | null, string][] = [
    [since('failedUpgrades'), analysis.maxFailedUpgrades, 'failed upgrades'],
    [since('crashes'), analysis.maxCrashes, 'crashes of the new version'],
    [since('cutConnections'), analysis.maxCutConnections, 'protected connections cut'],
    [since('failedRequests'), analysis.maxFailedRequests, 'failed requests'],
    // Not a count: judged as it is.
    [counts.p99Ms, analysis.maxP99Ms, 'ms at the 99th percentile'],
  ];
  for (const [found, limit, what] of checks) {
    if (found !== undefined && limit !== null && found > limit) return `${found} ${what}, at most ${limit} allowed`;
  }
  return undefined;
}

/**
 * Why a rollout that metrics are to judge begins nobody now. undefined: it may. One that was not heard is never taken for good news,
 * nor is one that was heard before the rollout began or went on.
 */
export function blindness({ spec, measured, unmeasured }: RolloutState): string | undefined {
  if (!needsMetrics(spec)) return undefined;
  if (unmeasured !== undefined) return `nothing is begun without metrics: ${unmeasured}`;
  return measured === undefined ? 'waits for the first word of the source of metrics' : undefined;
}

/** Until when a stage has to be watched before it counts as good, by a word of the source of metrics that is no older. */
export function watchedUntil({ spec, members, judgedFrom = 0 }: RolloutState): number {
  if (!needsMetrics(spec)) return 0;
  const last = members.reduce((latest, one) => Math.max(latest, one.servedAt ?? 0), 0);
  return last === 0 ? 0 : Math.max(last, judgedFrom) + spec.analysis.windowMs;
}
