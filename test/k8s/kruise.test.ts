import type { KubernetesObject, V1Container, V1Pod } from '@kubernetes/client-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { type ImageSpec, shell } from '../harness/k8s/images.ts';
import { startKruise } from '../harness/k8s/kruise.ts';
import { Node } from '../harness/k8s/node.ts';
import { podReady } from '../harness/k8s/pods.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import type { Child } from '../harness/process.ts';

const missing = (await missingTools()) ?? missingNodePackages();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

/** Notes its start with the pair of versions that OpenKruise tells it, and is ready at once. */
const RUN =
  'echo "$(cat /version) $SIDECARSET_VERSION $SIDECARSET_VERSION_ALT" >> /notes/log; ' +
  'trap "exit 0" TERM; while :; do sleep 1 & wait $!; done';

const SHELL = missing === undefined ? shell() : [];

function image(name: string, version: string): ImageSpec {
  const layers = [SHELL, [{ path: '/version', text: version }]];
  return { name: `sluice.test/${name}:${version}`, layers, entrypoint: ['/bin/sh', '-c', RUN] };
}

let block: Block;
let cluster: Cluster;
let node: Node;
let kruise: Child;

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  kruise = await startKruise(cluster);
  const images = [image('proxy', 'one'), image('proxy', 'two'), image('proxy', 'empty'), image('app', 'one')];
  node = await Node.start(cluster, { images });
});

afterAll(async () => {
  await kruise?.stop();
  await node?.stop();
  await cluster?.stop();
  await block?.release();
});

function sidecarSet(version: string): KubernetesObject {
  const container: V1Container = {
    name: 'proxy',
    image: `sluice.test/proxy:${version}`,
    imagePullPolicy: 'Never',
    readinessProbe: { exec: { command: ['test', '-e', '/version'] }, periodSeconds: 1 },
    volumeMounts: [{ name: 'notes', mountPath: '/notes' }],
  };
  const spec = {
    namespace: 'default',
    selector: { matchLabels: { app: 'shop' } },
    updateStrategy: { type: 'RollingUpdate', partition: 0, maxUnavailable: 1 },
    volumes: [{ name: 'notes', emptyDir: {} }],
    containers: [
      {
        ...container,
        podInjectPolicy: 'BeforeAppContainer',
        shareVolumePolicy: { type: 'disabled' },
        upgradeStrategy: { upgradeType: 'HotUpgrade', hotUpgradeEmptyImage: 'sluice.test/proxy:empty' },
      },
    ],
  };
  const object = { apiVersion: 'apps.kruise.io/v1alpha1', kind: 'SidecarSet', metadata: { name: 'proxy' }, spec };
  return object;
}

const images = (pod: V1Pod) =>
  Object.fromEntries(pod.spec?.containers.map(({ name, image }) => [name, image?.replace(/.*:/, '')]) ?? []);

it('the real OpenKruise injects a pair into a real Pod, upgrades it and resets the old one', async () => {
  const { client } = cluster;
  await client.apply(sidecarSet('one'));
  await client.apply<V1Pod>({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'shop', namespace: 'default', labels: { app: 'shop' } },
    spec: {
      nodeName: node.name,
      volumes: [{ name: 'notes', emptyDir: {} }],
      containers: [
        {
          name: 'app',
          image: 'sluice.test/app:one',
          imagePullPolicy: 'Never',
          volumeMounts: [{ name: 'notes', mountPath: '/notes' }],
        },
      ],
    },
  });
  const before = await podReady(cluster, 'shop');
  expect(images(before)).toEqual({ 'proxy-1': 'one', 'proxy-2': 'empty', app: 'one' });

  await client.apply(sidecarSet('two'));
  const after = await client.watch<V1Pod, V1Pod>(
    '/api/v1/namespaces/default/pods',
    ({ object }) =>
      object.status?.containerStatuses?.some(
        ({ name, image, ready }) => name === 'proxy-1' && image === 'sluice.test/proxy:empty' && ready,
      )
        ? object
        : undefined,
    { limitMs: 60_000 },
  );
  expect(images(after)).toEqual({ 'proxy-1': 'empty', 'proxy-2': 'two', app: 'one' });
  expect(after.metadata?.uid).toBe(before.metadata?.uid);
  expect(after.metadata?.annotations?.['kruise.io/sidecarset-working-hotupgrade-container']).toBe(
    '{"proxy":"proxy-2"}',
  );
  // The version of the new one is the SidecarSet's resourceVersion: it only grows.
  const log = (await cluster.kubectl('exec', 'shop', '-c', 'app', '--', 'cat', '/notes/log')).split('\n');
  const told = log.find((line) => line.startsWith('two'))?.split(' ')[1];
  expect(Number(told)).toBeGreaterThan(1);
  expect(log).toEqual(expect.arrayContaining(['one 1 0', 'empty 0 1', `two ${told} 1`, `empty 0 ${told}`]));
});
