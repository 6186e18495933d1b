import { afterAll, beforeAll, expect, test } from 'vitest';
import { type FleetCost, LargeFleets, sum } from '../harness/k8s/large-fleet.ts';
import { missingTools } from '../harness/k8s/tools.ts';

const missing = await missingTools(['etcd', 'kube-apiserver', 'kube-controller-manager']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

const [SMALL, LARGE] = [200, 2_000];

let fleets: LargeFleets;

beforeAll(async () => {
  if (missing === undefined) fleets = await LargeFleets.start(process.env.SLUICE_K8S_LOG);
});
afterAll(() => fleets?.stop());

function told({ pods, joining, upgrade, seconds, cpuSeconds }: FleetCost): string {
  const list = (counts: ReadonlyMap<string, number>) =>
    [...counts]
      .filter(([, count]) => count > 0)
      .sort(([, a], [, b]) => b - a)
      .map(([what, count]) => `${what} ${(count / pods).toFixed(2)}`)
      .join(', ');
  return [
    `${pods} Pods: ${seconds.toFixed(1)} s, CPU ${((1_000 * cpuSeconds) / pods).toFixed(1)} ms a Pod`,
    `  joining: ${(sum(joining) / pods).toFixed(2)} requests a Pod: ${list(joining)}`,
    `  upgrade: ${(sum(upgrade) / pods).toFixed(2)} requests a Pod: ${list(upgrade)}`,
  ].join('\n');
}

it(`requests for a Pod are as many among ${LARGE} Pods as among ${SMALL}`, async () => {
  const small = await fleets.upgrade(SMALL, 60_000);
  console.log(told(small));
  const large = await fleets.upgrade(LARGE, 240_000);
  console.log(told(large));
  const perPod = (cost: FleetCost, of: 'joining' | 'upgrade') => sum(cost[of]) / cost.pods;
  for (const of of ['joining', 'upgrade'] as const) {
    expect(perPod(large, of) / perPod(small, of), of).toBeLessThanOrEqual(1.2);
  }
}, 400_000);
