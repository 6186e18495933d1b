import { afterAll, beforeAll, expect, test } from 'vitest';
import { told } from '../bench/fleet.ts';
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

it(`requests for a Pod are as many among ${LARGE} Pods as among ${SMALL}`, async () => {
  const small = await fleets.upgrade(SMALL, 60_000);
  console.log(told(small));
  const large = await fleets.upgrade(LARGE, 400_000);
  console.log(told(large));
  const ratio = (of: (cost: FleetCost) => number) => of(large) / large.pods / (of(small) / small.pods);
  expect(ratio((cost) => sum(cost.upgrade))).toBeLessThanOrEqual(1.2);
  // Two patches of the Pod, what its agents and its upgrade write; found were 11 to 12.
  expect(sum(large.upgrade) / large.pods).toBeLessThan(15);
  expect(ratio((cost) => sum(cost.joining) + sum(cost.upgrade))).toBeLessThanOrEqual(1.2);
}, 600_000);
