import type { V1Pod } from '@kubernetes/client-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { startKruise } from '../harness/k8s/kruise.ts';
import { Node } from '../harness/k8s/node.ts';
import { podReady, watchReadiness } from '../harness/k8s/pods.ts';
import {
  appPod,
  bootstrapMap,
  EMPTY_IMAGE,
  emptyImage,
  SIDECAR_PORTS,
  SYSTEM_IMAGE,
  sidecarSet,
} from '../harness/k8s/sidecar-pod.ts';
import { sluiceImages, systemLayer } from '../harness/k8s/sluice-image.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { type Child, until } from '../harness/process.ts';
import { podBootstrap } from '../matrix/redirect-pod.ts';

const missing = (await missingTools()) ?? missingNodePackages();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

let block: Block;
let cluster: Cluster;
let node: Node;
let kruise: Child;

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  kruise = await startKruise(cluster);
  const images = [...(await sluiceImages(['1.39.3', '1.40.0'])), { name: SYSTEM_IMAGE, layers: [systemLayer()] }];
  node = await Node.start(cluster, { images: [...images, emptyImage()] });
});

afterAll(async () => {
  await kruise?.stop();
  await node?.stop();
  await cluster?.stop();
  await block?.release();
});

const LABELS = { app: 'shop' };
const image = (version: string) => `sluice.test/sluice:${version}`;

/** Resolves when that image runs in the container of one slot, ready, and the Empty image in that of the other. */
function settled(slot: number, version: string): Promise<V1Pod> {
  const runs = (pod: V1Pod, slot: number, image: string) =>
    pod.status?.containerStatuses?.some((one) => one.name === `proxy-${slot}` && one.image === image && one.ready);
  return cluster.client.watch<V1Pod, V1Pod>(
    '/api/v1/namespaces/default/pods',
    ({ object }) => (runs(object, slot, image(version)) && runs(object, 3 - slot, EMPTY_IMAGE) ? object : undefined),
    { limitMs: 120_000 },
  );
}

it('OpenKruise flips the pair three times, each reset held by the old container: no connection is lost', async () => {
  const { client } = cluster;
  await client.apply(bootstrapMap(podBootstrap()));
  await client.apply(sidecarSet(image('1.39.3'), EMPTY_IMAGE, LABELS));
  await client.apply(appPod({ name: 'shop', node: node.name, labels: LABELS }));
  const { podIP = '' } = (await podReady(cluster, 'shop')).status ?? {};
  const answer = await fetch(`http://${podIP}:${SIDECAR_PORTS.app}/`);
  expect([await answer.text(), answer.headers.get('server')]).toEqual(['done\n', 'envoy']);

  const readiness = watchReadiness(cluster, 'shop');
  const load = newConnections(SIDECAR_PORTS.app, 50, podIP);
  // OpenKruise resets as soon as the new container is ready: the stream is still there then, and the old one waits for it.
  let streamed = false;
  const stream = fetch(`http://${podIP}:${SIDECAR_PORTS.app}/cgi-bin/slow?20`);
  const whole = (await stream).text().finally(() => {
    streamed = true;
  });
  for (const [slot, version] of [
    [2, '1.40.0'],
    [1, '1.39.3'],
    [2, '1.40.0'],
  ] as const) {
    await client.apply(sidecarSet(image(version), EMPTY_IMAGE, LABELS));
    await settled(slot, version);
    expect(streamed).toBe(true);
  }
  expect((await whole).endsWith('\n20\nend\n')).toBe(true);
  console.log('the Pod was not Ready:', JSON.stringify(readiness.stop().gaps));
  const counts = await load.stop();
  expect(counts).toMatchObject({ refused: 0, lost: 0, failures: [] });
  expect(counts.answered).toBeGreaterThan(0);
});

it('without the agents, in the same Pod, OpenKruise cuts that stream: each Envoy has the port, and the old one is ended', async () => {
  const { client } = cluster;
  const envoy = 'exec /opt/envoy/*/envoy -c /etc/sluice/bootstrap/envoy.json --use-dynamic-base-id --concurrency 1';
  const idle = 'trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done';
  const plain = {
    // The Empty image has no Envoy.
    command: ['sh', '-c', `if ls /opt/envoy; then ${envoy}; else ${idle}; fi`],
    args: [],
    lifecycle: {},
    readinessProbe: { exec: { command: ['true'] }, periodSeconds: 1 },
  };
  const labels = { app: 'plain' };
  const set = (version: string) => {
    const object = sidecarSet(image(version), EMPTY_IMAGE, labels, plain);
    return { ...object, metadata: { name: 'plain' } };
  };
  await client.apply(set('1.39.3'));
  await client.apply(appPod({ name: 'plain', node: node.name, labels }));
  const { podIP = '' } = (await podReady(cluster, 'plain')).status ?? {};
  const stream = await until('Envoy', () => fetch(`http://${podIP}:${SIDECAR_PORTS.app}/cgi-bin/slow?60`));
  const cut = expect(stream.text()).rejects.toThrow('terminated');
  await client.apply(set('1.40.0'));
  await cut;
});
