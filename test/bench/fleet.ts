import { type FleetCost, LargeFleets, sum } from '../harness/k8s/large-fleet.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import type { Bench } from './bench.ts';

const SIZES = [200, 2_000] as const;
const LIMIT_MS = 400_000;
/** Requests are counted, so they hardly vary; times are of a machine that does other things too. */
const [REQUESTS, CPU] = [1.2, 1.5];

/**
 * Upgrades of 200 and of 2,000 Pods with simulated agents, by a real controller against a real API server: what each takes for a
 * Pod, and how that grows with the fleet. Times are told and not judged.
 */
export const fleetBench: Bench = async (say) => {
  const missing = await missingTools(['etcd', 'kube-apiserver', 'kube-controller-manager']);
  if (missing !== undefined) throw new Error(missing);
  const fleets = await LargeFleets.start();
  try {
    const costs: FleetCost[] = [];
    for (const pods of SIZES) {
      const cost = await fleets.upgrade(pods, LIMIT_MS);
      costs.push(cost);
      say(told(cost));
    }
    const [small, large] = costs as [FleetCost, FleetCost];
    const ratio = (of: (cost: FleetCost) => number): number => {
      const value = of(large) / large.pods / (of(small) / small.pods);
      return Math.round(value * 100) / 100;
    };
    const name = (what: string) => `${what} a Pod, ${large.pods} / ${small.pods} Pods`;
    return {
      checks: [
        { name: name('requests while agents come'), value: ratio((one) => sum(one.joining)), atMost: REQUESTS },
        { name: name('requests for the upgrade'), value: ratio((one) => sum(one.upgrade)), atMost: REQUESTS },
        { name: name('CPU of the controller'), value: ratio((one) => one.controllerSeconds), atMost: CPU },
        { name: name('CPU of the API server'), value: ratio((one) => one.apiServerSeconds), atMost: CPU },
      ],
      raw: costs.map(({ joining, upgrade, ...rest }) => ({
        ...rest,
        joining: Object.fromEntries(joining),
        upgrade: Object.fromEntries(upgrade),
      })),
    };
  } finally {
    await fleets.stop();
  }
};

/** By the request, most frequent first. */
export function told({ pods, joining, upgrade, seconds, ...cpu }: FleetCost): string {
  const list = (counts: ReadonlyMap<string, number>) =>
    [...counts]
      .filter(([, count]) => count / pods >= 0.01)
      .sort(([, a], [, b]) => b - a)
      .map(([what, count]) => `${what} ${(count / pods).toFixed(2)}`)
      .join(', ');
  const each = (value: number) => `${((1_000 * value) / pods).toFixed(1)} ms`;
  return [
    `${pods} Pods: ${seconds.toFixed(1)} s; CPU a Pod: controller ${each(cpu.controllerSeconds)}, API server ${each(cpu.apiServerSeconds)}`,
    `  joining: ${(sum(joining) / pods).toFixed(2)} requests a Pod: ${list(joining)}`,
    `  upgrade: ${(sum(upgrade) / pods).toFixed(2)} requests a Pod: ${list(upgrade)}`,
  ].join('\n');
}
