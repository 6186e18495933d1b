import type { V1Pod } from '@kubernetes/client-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { Node } from '../harness/k8s/node.ts';
import { podReady, watchReadiness } from '../harness/k8s/pods.ts';
import {
  bootstrapMap,
  EMPTY_IMAGE,
  emptyImage,
  SIDECAR_PORTS,
  SYSTEM_IMAGE,
  sidecarPod,
} from '../harness/k8s/sidecar-pod.ts';
import { sluiceImages, systemLayer } from '../harness/k8s/sluice-image.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { until } from '../harness/process.ts';
import { podBootstrap } from '../matrix/redirect-pod.ts';

const missing =
  (await missingTools(['etcd', 'kube-apiserver', 'kube-controller-manager', 'kubelet', 'kubectl'])) ??
  missingNodePackages();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

let block: Block;
let cluster: Cluster;
let node: Node;

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  node = await Node.start(cluster, {
    images: [
      ...(await sluiceImages(['1.39.3', '1.40.0'])),
      { name: SYSTEM_IMAGE, layers: [systemLayer()] },
      emptyImage(),
    ],
  });
});

afterAll(async () => {
  await node?.stop();
  await cluster?.stop();
  await block?.release();
});

it('an Envoy of one container hands over to that of the other, behind REDIRECT, and no connection is lost', async () => {
  const { client } = cluster;
  await client.apply(bootstrapMap(podBootstrap()));
  const images = ['sluice.test/sluice:1.39.3', EMPTY_IMAGE] as const;
  const pod = await client.apply(sidecarPod({ name: 'shop', node: node.name, images }));
  const { podIP: address = '' } = (await podReady(cluster, 'shop')).status ?? {};
  const answer = await fetch(`http://${address}:${SIDECAR_PORTS.app}/`);
  expect([await answer.text(), answer.headers.get('server')]).toEqual(['done\n', 'envoy']);

  const readiness = watchReadiness(cluster, 'shop');
  const load = newConnections(SIDECAR_PORTS.app, 50, address);
  await client.patch(pod, { spec: { containers: [{ name: 'proxy-2', image: 'sluice.test/sluice:1.40.0' }] } });
  const status = async () => (await fetch(`http://${address}:${SIDECAR_PORTS.status}/healthz/ready`)).text();
  await until('slot 2 serves', async () => ((await status()).includes('slot 2') ? true : undefined), {
    limitMs: 60_000,
  });
  // The reset: its preStop holds it until its epoch may end.
  await client.patch(pod, { spec: { containers: [{ name: 'proxy-1', image: EMPTY_IMAGE }] } });
  await client.watch<V1Pod, true>(
    '/api/v1/namespaces/default/pods',
    ({ object }) =>
      object.status?.containerStatuses?.some(
        ({ name, image, started }) => name === 'proxy-1' && image === EMPTY_IMAGE && started,
      ) || undefined,
    { limitMs: 90_000 },
  );
  console.log('the Pod was not Ready:', JSON.stringify(readiness.stop().gaps));
  const counts = await load.stop();
  expect(counts).toMatchObject({ refused: 0, lost: 0, failures: [] });
  expect(counts.answered).toBeGreaterThan(0);
});
