import type { V1ContainerStatus, V1Pod } from '@kubernetes/client-node';
import { isReason, KubeClient, PODS } from '@sluice/xds-server/kube/client';
import { InPlaceProvider } from '@sluice/xds-server/kube/in-place-driver';
import { Informer } from '@sluice/xds-server/kube/informer';
import type { AgentWords, Wish } from '@sluice/xds-server/kube/provider';
import { epochSaid } from '@sluice/xds-server/testing/epoch-said';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { shell } from '../harness/k8s/images.ts';
import { Node } from '../harness/k8s/node.ts';
import { podReady } from '../harness/k8s/pods.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';

const missing =
  (await missingTools(['etcd', 'kube-apiserver', 'kube-controller-manager', 'kubelet'])) ?? missingNodePackages();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

const image = (version: string) => `sluice.test/proxy:${version}`;
const WAITS = 'trap "exit 0" TERM; while :; do sleep 1 & wait $!; done';

let block: Block;
let cluster: Cluster;
let node: Node;

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  const layers = [shell()];
  const made = (version: string, command: string) => ({
    name: image(version),
    layers: [...layers, [{ path: '/version', text: version }]],
    entrypoint: ['/bin/sh', '-c', command],
  });
  node = await Node.start(cluster, {
    images: [made('a', WAITS), made('b', WAITS), made('empty', WAITS), made('bad', 'exit 3')],
  });
});

afterAll(async () => {
  await node?.stop();
  await cluster?.stop();
  await block?.release();
});

const SERVES = { epochs: [epochSaid('serving', true)] };
const DRAINED = { epochs: [epochSaid('draining', true)] };

/** Steps whenever the Pod changes, until a step of that type. */
async function until(name: string, type: string, version: string, agents: AgentWords, undo = false): Promise<void> {
  const client = new KubeClient(cluster.kubeConfig);
  const provider = new InPlaceProvider(client);
  const wish: Wish = { container: 'proxy', emptyImage: image('empty'), image: image(version) };
  const end = new AbortController();
  let chain: Promise<void> = Promise.resolve();
  const step = async (pod: V1Pod) => {
    if (end.signal.aborted) return;
    try {
      const done = await provider.step(pod, wish, agents, { begin: true, undo });
      if (done.type === type) end.abort();
    } catch (error) {
      // The Pod has changed, and the event of that comes.
      if (!isReason(error, 'Conflict')) throw error;
    }
  };
  const changed = (pod: V1Pod) => {
    chain = chain.then(() => step(pod));
  };
  await new Informer<V1Pod>(client, PODS, { changed, gone() {} }, { fields: `metadata.name=${name}` }).run(end.signal);
  await chain;
}

const statuses = (pod: V1Pod): V1ContainerStatus[] => [
  ...(pod.status?.initContainerStatuses ?? []),
  ...(pod.status?.containerStatuses ?? []),
];

/** Resolves when the kubelet runs that image in that container. */
function runs(name: string, container: string, version: string): Promise<V1Pod> {
  return cluster.client.watch<V1Pod, V1Pod>(
    '/api/v1/namespaces/default/pods',
    ({ object }) =>
      statuses(object).some((one) => one.name === container && one.image === image(version) && one.state?.running)
        ? object
        : undefined,
    { fieldSelector: `metadata.name=${name}`, limitMs: 60_000 },
  );
}

function shop(name: string, native: boolean): V1Pod {
  const pair = [1, 2].map((n) => ({
    name: `proxy-${n}`,
    image: image(n === 1 ? 'a' : 'empty'),
    imagePullPolicy: 'Never',
    ...(native && { restartPolicy: 'Always' }),
  }));
  const app = { name: 'app', image: image('a'), imagePullPolicy: 'Never' };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default' },
    spec: {
      nodeName: node.name,
      terminationGracePeriodSeconds: 5,
      containers: native ? [app] : [app, ...pair],
      ...(native && { initContainers: pair }),
    },
  };
}

it.each([
  ['containers', false],
  ['natives', true],
])('the real kubelet flips a pair of %s, and touches no other container', async (name, native) => {
  await cluster.client.apply(shop(name, native));
  const before = await podReady(cluster, name);
  await until(name, 'wait', 'b', { '1': SERVES });
  await runs(name, 'proxy-2', 'b');
  await until(name, 'done', 'b', { '1': DRAINED, '2': SERVES });
  const after = await runs(name, 'proxy-1', 'empty');
  const idOf = (pod: V1Pod, container: string) => statuses(pod).find((one) => one.name === container)?.containerID;
  expect(idOf(after, 'app')).toBe(idOf(before, 'app'));
  expect(statuses(after).find((one) => one.name === 'proxy-2')?.restartCount).toBe(1);
  expect(after.metadata?.uid).toBe(before.metadata?.uid);
});

it('an image that does not come up is named, and taken back', async () => {
  await cluster.client.apply(shop('bad', false));
  await podReady(cluster, 'bad');
  await until('bad', 'failed', 'bad', { '1': SERVES });
  await until('bad', 'undo', 'bad', { '1': SERVES }, true);
  const after = await runs('bad', 'proxy-2', 'empty');
  expect(statuses(after).find((one) => one.name === 'proxy-1')?.restartCount).toBe(0);
});
