import type { V1Pod } from '@kubernetes/client-node';
import type { EpochState, EpochStatus } from '@sluice/contract';
import { isReason, KubeClient } from '@sluice/xds-server/kube/client';
import type { SidecarSet } from '@sluice/xds-server/kube/open-kruise';
import { OpenKruiseProvider, SIDECAR_SETS } from '@sluice/xds-server/kube/open-kruise-driver';
import type { AgentWords, FleetWish, PodStep, Slot } from '@sluice/xds-server/kube/provider';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { applySet, startKruise } from '../harness/k8s/kruise.ts';
import { Node } from '../harness/k8s/node.ts';
import { podReady } from '../harness/k8s/pods.ts';
import { SHELL_EMPTY, shellImage, shellImages, shellPod, shellSet } from '../harness/k8s/shell-pair.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { type Child, until } from '../harness/process.ts';

const missing = (await missingTools()) ?? missingNodePackages();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

let block: Block;
let cluster: Cluster;
let node: Node;
let kruise: Child;
let client: KubeClient;

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  kruise = await startKruise(cluster);
  node = await Node.start(cluster, { images: shellImages('one', 'two', 'bad') });
  client = new KubeClient(cluster.kubeConfig);
});

afterAll(async () => {
  await kruise?.stop();
  await node?.stop();
  await cluster?.stop();
  await block?.release();
});

const images = (pod: V1Pod) =>
  Object.fromEntries(pod.spec?.containers.map(({ name, image }) => [name, image?.replace(/.*:/, '')]) ?? []);

/** Resolves when the kubelet runs these versions in the two containers, both ready. */
function runs(name: string, one: string, two: string): Promise<V1Pod> {
  const is = (pod: V1Pod, slot: Slot, version: string) =>
    pod.status?.containerStatuses?.some(
      (each) => each.name === `proxy-${slot}` && each.image === shellImage(version) && each.ready,
    );
  return cluster.client.watch<V1Pod, V1Pod>(
    '/api/v1/namespaces/default/pods',
    ({ object }) => (is(object, '1', one) && is(object, '2', two) ? object : undefined),
    { limitMs: 60_000, fieldSelector: `metadata.name=${name}` },
  );
}

it('the real OpenKruise injects a pair into a real Pod, upgrades it and resets the old one', async () => {
  const labels = { app: 'alone' };
  await applySet(cluster, shellSet('one', labels));
  await cluster.client.apply(shellPod('alone', node.name, labels));
  const before = await podReady(cluster, 'alone');
  expect(images(before)).toEqual({ 'proxy-1': 'one', 'proxy-2': 'empty', app: 'empty' });

  await cluster.client.apply(shellSet('two', labels));
  const after = await runs('alone', 'empty', 'two');
  expect(after.metadata?.uid).toBe(before.metadata?.uid);
  expect(after.metadata?.annotations?.['kruise.io/sidecarset-working-hotupgrade-container']).toBe(
    '{"proxy":"proxy-2"}',
  );
  // The version of the new one is the SidecarSet's resourceVersion: it only grows.
  const log = (await cluster.kubectl('exec', 'alone', '-c', 'app', '--', 'cat', '/notes/log')).split('\n');
  const told = log.find((line) => line.startsWith('two'))?.split(' ')[1];
  expect(Number(told)).toBeGreaterThan(1);
  expect(log).toEqual(expect.arrayContaining(['one 1 0', 'empty 0 1', `two ${told} 1`, `empty 0 ${told}`]));
});

const epoch = (state: EpochState): EpochStatus => ({ epoch: 1, slot: '1', state, version: '1', pid: 1, startedAt: 0 });
const SERVES = { epochs: [epoch('serving')] };
const SHOP = { app: 'shop' };
const fleet = (version: string, more: Partial<FleetWish> = {}): FleetWish => ({
  namespace: 'default',
  selector: { matchLabels: SHOP },
  container: 'proxy',
  image: shellImage(version),
  back: false,
  paused: false,
  maxUnavailable: 2,
  until: 'reset',
  ...more,
});

let provider: OpenKruiseProvider;
const pod = (name: string) =>
  cluster.client.get<V1Pod>({ apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace: 'default' } });
const set = () => client.get<SidecarSet>(SIDECAR_SETS, { name: 'shop' });

/** Steps until a step of that type. */
async function step(name: string, version: string, words: AgentWords, type: PodStep['type'], undo = false) {
  const wish = { container: 'proxy', emptyImage: SHELL_EMPTY, image: shellImage(version) };
  const once = async () => {
    try {
      const done = await provider.step(await pod(name), wish, words, { begin: true, undo });
      return done.type === type ? done : undefined;
    } catch (error) {
      if (!isReason(error, 'Conflict')) throw error;
      return undefined;
    }
  };
  return until(`${name}: ${type}`, once, { limitMs: 60_000, everyMs: 100 });
}

it('OpenKruise takes the Pod whose turn it is and no other, and none while it is paused', async () => {
  provider = new OpenKruiseProvider(client, 'shop');
  await applySet(cluster, shellSet('one', SHOP));
  for (const name of ['shop-a', 'shop-b', 'shop-c']) await cluster.client.apply(shellPod(name, node.name, SHOP));
  for (const name of ['shop-a', 'shop-b', 'shop-c']) await podReady(cluster, name);

  expect(await provider.prepare(fleet('two', { paused: true }))).toMatchObject({ type: 'ready' });
  await step('shop-b', 'two', { '1': SERVES }, 'upgrade');
  // It has seen the turn, and waits.
  await cluster.client.watch<SidecarSet & { status?: { observedGeneration?: number } }, true>(
    '/apis/apps.kruise.io/v1alpha1/sidecarsets',
    ({ object }) => object.status?.observedGeneration === object.metadata?.generation || undefined,
    { fieldSelector: 'metadata.name=shop' },
  );
  expect(images(await pod('shop-b'))).toMatchObject({ 'proxy-1': 'one', 'proxy-2': 'empty' });

  expect(await provider.prepare(fleet('two'))).toMatchObject({ type: 'ready', image: shellImage('two') });
  await runs('shop-b', 'empty', 'two');
  await step('shop-b', 'two', { '2': SERVES }, 'done');
  for (const other of ['shop-a', 'shop-c']) {
    expect(images(await pod(other))).toMatchObject({ 'proxy-1': 'one', 'proxy-2': 'empty' });
  }
});

it('it goes back, and at the end leaves the partition: OpenKruise begins nothing by itself', async () => {
  expect(await provider.prepare(fleet('two', { back: true }))).toMatchObject({ image: shellImage('one') });
  await step('shop-b', 'one', { '2': SERVES }, 'upgrade');
  await runs('shop-b', 'one', 'empty');
  await provider.prepare(fleet('two'));
  await step('shop-a', 'two', { '1': SERVES }, 'upgrade');
  await runs('shop-a', 'empty', 'two');
  // Two Pods are kept back.
  expect(await provider.prepare(fleet('two', { kept: 2 }))).toMatchObject({ type: 'ready' });
  expect((await set()).spec?.updateStrategy).toMatchObject({ partition: 2, maxUnavailable: 2, paused: false });
  expect((await set()).spec?.updateStrategy?.selector).toBeUndefined();
  await cluster.client.watch<SidecarSet & { status?: { observedGeneration?: number; updatedPods?: number } }, true>(
    '/apis/apps.kruise.io/v1alpha1/sidecarsets',
    ({ object }) =>
      (object.metadata?.name === 'shop' && object.status?.observedGeneration === object.metadata?.generation) ||
      undefined,
  );
  expect(images(await pod('shop-b'))).toMatchObject({ 'proxy-1': 'one' });
  expect(images(await pod('shop-c'))).toMatchObject({ 'proxy-1': 'one' });
});

it('a new container that does not come up is taken back, and OpenKruise leaves the one that serves alone', async () => {
  await provider.prepare(fleet('bad'));
  await step('shop-c', 'bad', { '1': SERVES }, 'upgrade');
  const failed = await step('shop-c', 'bad', { '1': SERVES }, 'failed');
  expect(failed).toMatchObject({ reason: 'CrashLoopBackOff' });
  await step('shop-c', 'bad', { '1': SERVES }, 'undo', true);
  const after = await runs('shop-c', 'one', 'empty');
  const restarts = after.status?.containerStatuses?.find(({ name }) => name === 'proxy-1')?.restartCount;
  expect(restarts).toBe(0);
  // The next upgrade of the same Pod is one like any other.
  await provider.prepare(fleet('two'));
  await step('shop-c', 'two', { '1': SERVES }, 'upgrade');
  const next = await runs('shop-c', 'empty', 'two');
  expect(images(next)).toEqual({ 'proxy-1': 'empty', 'proxy-2': 'two', app: 'empty' });
});
