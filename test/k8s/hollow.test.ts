import type { V1Pod } from '@kubernetes/client-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '../harness/k8s/cluster.ts';
import { HollowNodes } from '../harness/k8s/hollow.ts';
import { podReady } from '../harness/k8s/pods.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';

const missing = await missingTools(['etcd', 'kube-apiserver', 'kube-controller-manager']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

let block: Block;
let cluster: Cluster;
let nodes: HollowNodes;

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  nodes = await HollowNodes.start(cluster, ['hollow-1', 'hollow-2']);
});

afterAll(async () => {
  nodes?.stop();
  await cluster?.stop();
  await block?.release();
});

function pod(i: number): V1Pod {
  const containers = [1, 2].map((slot) => ({ name: `proxy-${slot}`, image: 'proxy:1' }));
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `pod-${i}`, namespace: 'default' },
    spec: { nodeName: `hollow-${1 + (i % 2)}`, automountServiceAccountToken: false, containers },
  };
}

it('Pods on hollow nodes are Ready, restart a container whose image is changed, and go when they are deleted', async () => {
  const { client } = cluster;
  const pods = await Promise.all(Array.from({ length: 100 }, (_, i) => client.apply(pod(i))));
  await Promise.all(pods.map(({ metadata }) => podReady(cluster, metadata?.name ?? '')));
  const [first, second] = pods as [V1Pod, V1Pod];
  await client.patch(first, { spec: { containers: [{ name: 'proxy-2', image: 'proxy:2' }] } });
  const changed = await client.watch<V1Pod, V1Pod>('/api/v1/namespaces/default/pods', ({ object }) =>
    object.status?.containerStatuses?.some(({ image }) => image === 'proxy:2') ? object : undefined,
  );
  expect(changed.status?.containerStatuses?.map(({ restartCount }) => restartCount)).toEqual([0, 1]);
  await client.delete(second);
  await client.gone(second);
  expect(nodes.failures).toEqual([]);
});
