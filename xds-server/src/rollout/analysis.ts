import type { RolloutCounts, RolloutMember, RolloutSpec } from '@sluice/contract';
import type { Measured, RolloutState } from './state.ts';

/** What the agents' words of its members, and a source of metrics if there is one, sum up to. */
export function countsOf(members: readonly RolloutMember[], measured: Measured = {}): RolloutCounts {
  const sum = (of: (member: RolloutMember) => number): number => members.reduce((all, one) => all + of(one), 0);
  return {
    failedUpgrades: sum((one) => one.failures),
    crashes: sum((one) => one.crashes),
    cutConnections: sum((one) => one.cut),
    ...measured,
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
