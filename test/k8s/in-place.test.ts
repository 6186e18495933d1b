import type { V1ContainerStatus, V1Pod } from '@kubernetes/client-node';
import { isReason, KubeClient, PODS } from '@sluice/xds-server/kube/client';
import { InPlaceProvider } from '@sluice/xds-server/kube/in-place-driver';
import { Informer } from '@sluice/xds-server/kube/informer';
import type { AgentWords, Wish } from '@sluice/xds-server/kube/provider';
import { epochSaid } from '@sluice/xds-server/testing/epoch-said';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { until } from '../harness/process.ts';

const missing = await missingTools(['etcd', 'kube-apiserver']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

let block: Block;
let cluster: Cluster;
let client: KubeClient;
let pods: Informer<V1Pod>;
const end = new AbortController();
let running: Promise<void>;

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block, { controllerManager: false });
  client = new KubeClient(cluster.kubeConfig);
  pods = new Informer<V1Pod>(client, PODS, { changed() {}, gone() {} }, { labels: 'app=shop' });
  running = pods.run(end.signal);
  await pods.synced;
});

afterAll(async () => {
  end.abort();
  await running;
  await cluster?.stop();
  await block?.release();
});

const EMPTY = 'mesh/empty:1';
const SERVES = { epochs: [epochSaid('serving', false)] };
const drains = (safe: boolean) => ({ epochs: [epochSaid('draining', safe)] });

function shop(name: string, native: boolean): V1Pod {
  const pair = [1, 2].map((n) => ({
    name: `proxy-${n}`,
    image: n === 1 ? 'mesh/proxy:a' : EMPTY,
    ...(native && { restartPolicy: 'Always' }),
  }));
  const app = { name: 'app', image: 'app:1' };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels: { app: 'shop' } },
    spec: {
      nodeName: 'nowhere',
      containers: native ? [app] : [app, ...pair],
      ...(native && { initContainers: pair }),
    },
  };
}

/** What a kubelet does: runs the images that the Pod says. Resolves when the informer has seen it. */
async function kubelet(name: string): Promise<V1Pod> {
  const pod = await client.get<V1Pod>(PODS, { namespace: 'default', name });
  const statuses = (list: V1Pod['spec']): V1ContainerStatus[] =>
    (list?.containers ?? []).map((one) => ({
      name: one.name,
      image: `docker.io/${one.image}`,
      imageID: 'sha256:0',
      ready: true,
      restartCount: 0,
      state: { running: {} },
    }));
  const initContainers = { containers: pod.spec?.initContainers ?? [] };
  const status = {
    phase: 'Running',
    containerStatuses: statuses(pod.spec),
    initContainerStatuses: statuses(initContainers),
  };
  const told = await client.patch<V1Pod>(PODS, { namespace: 'default', name, subresource: 'status' }, 'merge', {
    status,
  });
  const version = told.metadata?.resourceVersion;
  return until('the informer', async () => {
    const seen = pods.get('default', name);
    return seen?.metadata?.resourceVersion === version ? seen : undefined;
  });
}

function images(pod: V1Pod): Record<string, string | undefined> {
  const all = [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])];
  return Object.fromEntries(all.filter(({ name }) => name !== 'app').map(({ name, image }) => [name, image]));
}

it.each([
  ['containers', false],
  ['native sidecars', true],
])('flips a pair of %s twice, and resets on the verdict only', async (kind, native) => {
  const name = `flips-${kind.replace(' ', '-')}`;
  await client.create(PODS, shop(name, native));
  const provider = new InPlaceProvider(client);
  const step = async (image: string, agents: AgentWords) => {
    const wish: Wish = { container: 'proxy', emptyImage: EMPTY, image };
    const { type } = await provider.step(await kubelet(name), wish, agents, { begin: true, undo: false });
    return { type, ...images(await kubelet(name)) };
  };
  const b = 'mesh/proxy:b';
  expect(await step(b, { '1': SERVES })).toEqual({ type: 'upgrade', 'proxy-1': 'mesh/proxy:a', 'proxy-2': b });
  expect((await step(b, { '1': SERVES })).type).toBe('wait');
  expect((await step(b, { '1': drains(false), '2': SERVES })).type).toBe('wait');
  expect(await step(b, { '1': drains(true), '2': SERVES })).toEqual({ type: 'reset', 'proxy-1': EMPTY, 'proxy-2': b });
  expect((await step(b, { '2': SERVES })).type).toBe('done');

  const c = 'mesh/proxy:c';
  expect(await step(c, { '2': SERVES })).toEqual({ type: 'upgrade', 'proxy-1': c, 'proxy-2': b });
  expect(await step(c, { '1': SERVES, '2': drains(true) })).toEqual({ type: 'reset', 'proxy-1': c, 'proxy-2': EMPTY });
  expect((await step(c, { '1': SERVES })).type).toBe('done');
});

it('a Pod that changed since it was seen, or that is another one of the same name, is not patched', async () => {
  const provider = new InPlaceProvider(client);
  const wish: Wish = { container: 'proxy', emptyImage: EMPTY, image: 'mesh/proxy:b' };
  const step = (pod: V1Pod) => provider.step(pod, wish, { '1': SERVES }, { begin: true, undo: false });
  const thrown = (pod: V1Pod) => step(pod).catch((error: unknown) => error);
  await client.create(PODS, shop('races', false));
  const seen = await kubelet('races');
  await client.patch(PODS, { namespace: 'default', name: 'races' }, 'merge', { metadata: { annotations: { a: 'b' } } });
  expect(isReason(await thrown(seen), 'Conflict')).toBe(true);

  await cluster.client.delete(seen, 0);
  await client.create(PODS, shop('races', false));
  const other = await kubelet('races');
  const mixed = { ...seen, metadata: { ...seen.metadata, resourceVersion: other.metadata?.resourceVersion ?? '' } };
  expect(isReason(await thrown(mixed), 'Conflict', 'Invalid')).toBe(true);
  expect(images(await client.get<V1Pod>(PODS, { namespace: 'default', name: 'races' }))).toMatchObject({
    'proxy-2': EMPTY,
  });
  expect((await step(other)).type).toBe('upgrade');
});

it('the informer goes on when the API server was away, and knows who is gone', async () => {
  await client.create(PODS, shop('leaves', false));
  await kubelet('leaves');
  await cluster.pause();
  expect(pods.get('default', 'leaves')).toBeDefined();
  await cluster.resume();
  await cluster.client.delete(shop('leaves', false), 0);
  await until('its end', async () => pods.get('default', 'leaves') === undefined || undefined, { limitMs: 60_000 });
});
