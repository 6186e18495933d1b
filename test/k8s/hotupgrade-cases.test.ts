import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { KubernetesObject, V1Pod } from '@kubernetes/client-node';
import type { HotUpgrade, HotUpgradeStatus } from '@sluice/xds-server/kube/hotupgrade';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '../harness/k8s/cluster.ts';
import { HollowNodes } from '../harness/k8s/hollow.ts';
import { installSluice, startKubeController } from '../harness/k8s/installed.ts';
import { EMPTY_IMAGE } from '../harness/k8s/sidecar-pod.ts';
import { SimulatedAgents } from '../harness/k8s/simulated-agents.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import type { Child } from '../harness/process.ts';

// The real API server, kubelets and agents that are none: what a HotUpgrade does, case by case.

const missing = await missingTools(['etcd', 'kube-apiserver', 'kube-controller-manager', 'kubectl']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

const API_VERSION = 'sluice.dev/v1alpha1';
const A = 'mesh/proxy:a';
const B = 'mesh/proxy:b';
const C = 'mesh/proxy:c';
const LAST_WORDS = 60;

let block: Block;
let cluster: Cluster;
let hollow: HollowNodes;
let agents: SimulatedAgents;
let controller: Child;
let api: string;
let kubeconfig: string;

const logFile = (): string => process.env.SLUICE_K8S_LOG ?? path.join(block.dir, 'controller.log');

async function startController(): Promise<void> {
  const xds = `127.0.0.1:${await block.port()}`;
  controller = await startKubeController({ kubeconfig, api, xds, log: logFile() });
}

/** What the controller said last. */
function lastWords(): string {
  const lines = readFileSync(logFile(), 'utf8').trimEnd().split('\n').slice(-LAST_WORDS);
  return lines.map((line) => line.slice(0, 300)).join('\n');
}

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  kubeconfig = await installSluice(cluster);
  hollow = await HollowNodes.start(cluster, ['hollow-1']);
  api = `127.0.0.1:${await block.port()}`;
  await startController();
  agents = new SimulatedAgents(cluster, `http://${api}`);
}, 120_000);

afterAll(async () => {
  agents?.stop();
  await controller?.stop();
  hollow?.stop();
  await cluster?.stop();
  await block?.release();
});

function pod(name: string, app: string, more: readonly string[] = [], pair = true): V1Pod {
  const both = [A, EMPTY_IMAGE].map((image, n) => ({ name: `proxy-${n + 1}`, image }));
  const others = ['app', ...more].map((one) => ({ name: one, image: 'app:1' }));
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels: { app } },
    spec: {
      nodeName: 'hollow-1',
      terminationGracePeriodSeconds: 1,
      containers: pair ? [...others, ...both] : others,
    },
  };
}

const pods = async (app: string, count: number): Promise<void> => {
  for (let n = 0; n < count; n++) await cluster.client.apply(pod(`${app}-${n}`, app));
};

type Spec = Partial<HotUpgrade['spec']>;

function hotUpgrade(name: string, app: string, more: Spec = {}): KubernetesObject & { spec: object } {
  const spec = {
    selector: { matchLabels: { app } },
    container: 'proxy',
    target: { image: B },
    emptyImage: EMPTY_IMAGE,
    ...more,
  };
  return { apiVersion: API_VERSION, kind: 'HotUpgrade', metadata: { name, namespace: 'default' }, spec };
}

/** Resolves with the first status for which that holds. */
function status(name: string, holds: (status: HotUpgradeStatus) => boolean, what: string): Promise<HotUpgradeStatus> {
  let last: HotUpgradeStatus | undefined;
  return cluster.client
    .watch<HotUpgrade, HotUpgradeStatus>(
      '/apis/sluice.dev/v1alpha1/namespaces/default/hotupgrades',
      ({ object }) => {
        if (object.metadata?.name !== name || object.status === undefined) return undefined;
        last = object.status;
        return object.status.observedGeneration === object.metadata.generation && holds(object.status)
          ? object.status
          : undefined;
      },
      { limitMs: 45_000 },
    )
    .catch((error: Error) => {
      throw new Error(`${name}: ${what}: ${error.message}: ${JSON.stringify(last)}\n${lastWords()}`);
    });
}

const phase = (name: string, wanted: string): Promise<HotUpgradeStatus> =>
  status(name, (one) => one.phase === wanted, wanted);
const condition = (one: HotUpgradeStatus, type: string) => one.conditions?.find((each) => each.type === type);
const has = (name: string, type: string, is: string, reason: string): Promise<HotUpgradeStatus> =>
  status(
    name,
    (one) => condition(one, type)?.status === is && condition(one, type)?.reason === reason,
    `${type}=${is} ${reason}`,
  );

async function images(name: string): Promise<(string | undefined)[]> {
  const one = await cluster.client.get<V1Pod>({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default' },
  });
  return [1, 2].map((n) => one.spec?.containers.find((each) => each.name === `proxy-${n}`)?.image);
}

const gone = (name: string): Promise<true> =>
  cluster.client.watch<HotUpgrade, true>(
    '/apis/sluice.dev/v1alpha1/namespaces/default/hotupgrades',
    ({ type, object }) => (type === 'DELETED' && object.metadata?.name === name ? true : undefined),
    { limitMs: 45_000 },
  );

it('canary, then all, by the version; then back, and on to another target in the middle', async () => {
  await pods('plain', 4);
  await cluster.client.apply(
    hotUpgrade('plain', 'plain', { target: { version: 'b' }, strategy: { maxUnavailable: 2 } }),
  );
  const done = await phase('plain', 'Done');
  expect(done).toMatchObject({ image: B, total: 4, updated: 4, draining: 0, failed: 0, deleted: 0, refused: [] });
  expect(condition(done, 'Complete')).toMatchObject({ status: 'True' });
  expect(condition(done, 'Accepted')).toMatchObject({ status: 'True' });
  for (let n = 0; n < 4; n++) expect(await images(`plain-${n}`)).toEqual([EMPTY_IMAGE, B]);

  // Back: the other container gets its turn.
  await cluster.client.apply(hotUpgrade('plain', 'plain', { target: { image: A } }));
  expect(await phase('plain', 'Done')).toMatchObject({ image: A, updated: 4 });
  for (let n = 0; n < 4; n++) expect(await images(`plain-${n}`)).toEqual([A, EMPTY_IMAGE]);

  agents.hold('plain-0.default');
  await cluster.client.apply(hotUpgrade('plain', 'plain', { target: { image: B }, strategy: { until: 'Reset' } }));
  await status('plain', (one) => one.draining === 1, 'the canary drains');
  await cluster.client.apply(hotUpgrade('plain', 'plain', { target: { image: C }, strategy: { maxUnavailable: 4 } }));
  await status('plain', (one) => one.phase === 'Progressing' && one.updated === 3, 'the others have the next target');
  expect(await images('plain-0')).toEqual([A, B]);
  agents.letGo('plain-0.default');
  expect(await phase('plain', 'Done')).toMatchObject({ image: C, updated: 4 });
  expect(await images('plain-0')).toEqual([C, EMPTY_IMAGE]);
});

it('paused and partition hold it, and are taken back; new Pods of a Done one are upgraded', async () => {
  await pods('held', 3);
  await cluster.client.apply(hotUpgrade('held', 'held', { strategy: { paused: true } }));
  expect(await phase('held', 'Paused')).toMatchObject({ total: 3, updated: 0 });
  await cluster.client.apply(hotUpgrade('held', 'held', { strategy: { partition: 2 } }));
  expect(await phase('held', 'Done')).toMatchObject({ total: 3, updated: 1 });
  await cluster.client.apply(hotUpgrade('held', 'held', { strategy: { partition: 0 } }));
  expect(await status('held', (one) => one.updated === 3 && one.phase === 'Done', 'all')).toMatchObject({ total: 3 });
  await cluster.client.apply(pod('held-3', 'held'));
  await status('held', (one) => one.updated === 4 && one.phase === 'Done', 'the new one too');
});

it('a drain goes by the policy that its HotUpgrade names; one that does not exist is told', async () => {
  await pods('gentle', 1);
  await cluster.client.apply(hotUpgrade('gentle', 'gentle', { policy: { name: 'slow' } }));
  const told = await has('gentle', 'Accepted', 'False', 'PolicyNotFound');
  expect(told.reason).toContain('expected DrainPolicy slow in namespace default, found none');
  expect(told.phase).toBe('Pending');
  const policy = { apiVersion: API_VERSION, kind: 'DrainPolicy', metadata: { name: 'slow', namespace: 'default' } };
  await cluster.client.apply({ ...policy, spec: { maxDrainMs: 7_000_001 } } as KubernetesObject);
  await phase('gentle', 'Done');
  const answer = await fetch(`http://${api}/api/v1/upgrades`);
  const { items } = (await answer.json()) as { items: { proxy: string; policy: { maxDrainMs: number } }[] };
  expect(items.filter((one) => one.proxy === 'gentle-0.default').map((one) => one.policy.maxDrainMs)).toEqual([
    7_000_001,
  ]);
  await cluster.client.watch<HotUpgrade, true>(
    '/apis/sluice.dev/v1alpha1/namespaces/default/drainpolicies',
    ({ object }) =>
      object.status !== undefined && condition(object.status, 'Accepted')?.status === 'True' ? true : undefined,
  );
});

it('of two that select a Pod the older one has it, and the younger names it', async () => {
  await pods('shared', 2);
  await cluster.client.apply(hotUpgrade('elder', 'shared', { strategy: { paused: true } }));
  await phase('elder', 'Paused');
  // Ages have whole seconds.
  await new Promise((resolve) => setTimeout(resolve, 1_100));
  await cluster.client.apply(hotUpgrade('younger', 'shared', { target: { image: C } }));
  const told = await has('younger', 'Conflict', 'True', 'OtherHotUpgrade');
  expect(condition(told, 'Conflict')?.message).toContain('Pod shared-0 belongs to HotUpgrade elder');
  expect(told).toMatchObject({ total: 0, phase: 'Pending' });
  expect(await images('shared-0')).toEqual([A, EMPTY_IMAGE]);
  // Nothing was begun: it goes at once, and the younger one has them.
  const end = gone('elder');
  await cluster.client.delete(hotUpgrade('elder', 'shared'));
  await end;
  expect(await phase('younger', 'Done')).toMatchObject({ updated: 2 });
});

it('Pods that can not be upgraded are refused by name, and the others are upgraded', async () => {
  await cluster.client.apply(pod('mixed-0', 'mixed'));
  await cluster.client.apply(pod('mixed-1', 'mixed', ['istio-proxy']));
  await cluster.client.apply(pod('mixed-2', 'mixed', [], false));
  await cluster.client.apply(hotUpgrade('mixed', 'mixed'));
  const done = await phase('mixed', 'Done');
  expect(done).toMatchObject({ total: 1, updated: 1 });
  expect(done.refused?.map(({ pod: name, reason }) => [name, reason]).sort()).toEqual([
    ['mixed-1', 'ForeignProxy'],
    ['mixed-2', 'NoSuchContainers'],
  ]);
  expect(condition(done, 'PodsRefused')?.message).toContain('container istio-proxy');
  expect(await images('mixed-1')).toEqual([A, EMPTY_IMAGE]);
});

it('a Pod that is deleted in the middle leaves, is counted, and is no failure; one made anew is another one', async () => {
  await pods('leaves', 2);
  agents.hold('leaves-0.default');
  await cluster.client.apply(hotUpgrade('leaves', 'leaves', { strategy: { until: 'Reset' } }));
  await status('leaves', (one) => one.draining === 1, 'the first one drains');
  agents.letGo('none');
  await cluster.client.delete(pod('leaves-0', 'leaves'), 0);
  agents.letGo('leaves-0.default');
  const done = await phase('leaves', 'Done');
  expect(done).toMatchObject({ total: 1, updated: 1, deleted: 1, failed: 0 });
  await cluster.client.apply(pod('leaves-0', 'leaves'));
  await status('leaves', (one) => one.total === 2 && one.updated === 2 && one.phase === 'Done', 'the new one');
});

it('one that is deleted waits for what it began, and says for whom', async () => {
  await pods('ends', 3);
  agents.hold('ends-0.default');
  await cluster.client.apply(hotUpgrade('ends', 'ends', { strategy: { until: 'Reset' } }));
  await status('ends', (one) => one.draining === 1, 'the first one drains');
  const end = gone('ends');
  await cluster.client.delete(hotUpgrade('ends', 'ends'));
  const told = await has('ends', 'Deleting', 'True', 'WaitsForPods');
  expect(condition(told, 'Deleting')?.message).toMatch(/ends-0|1 Pod/);
  agents.letGo('ends-0.default');
  await end;
  expect(await images('ends-0')).toEqual([EMPTY_IMAGE, B]);
  expect(await images('ends-1')).toEqual([A, EMPTY_IMAGE]);
});

it('by OpenKruise, where there is none: that is told by name, and it can be deleted', async () => {
  await pods('kruise', 1);
  const { emptyImage: _, ...spec } = hotUpgrade('kruise', 'kruise').spec as HotUpgrade['spec'];
  const wanted = { ...hotUpgrade('kruise', 'kruise'), spec: { ...spec, provider: 'OpenKruise', sidecarSet: 'none' } };
  await cluster.client.apply(wanted);
  await has('kruise', 'Accepted', 'False', 'NoSidecarSet');
  const end = gone('kruise');
  await cluster.client.delete(wanted);
  await end;
});

it('a controller that is killed in the middle goes on where it was, and another term writes', async () => {
  await pods('killed', 4);
  agents.hold('killed-1.default');
  await cluster.client.apply(hotUpgrade('killed', 'killed', { strategy: { until: 'Reset' } }));
  const before = await status('killed', (one) => one.updated === 2 && one.draining === 1, 'the second one drains');
  controller.kill('SIGKILL');
  await controller.ended;
  await startController();
  agents.letGo('killed-1.default');
  const done = await phase('killed', 'Done');
  expect(done).toMatchObject({ updated: 4, rollout: before.rollout });
  expect(done.fence).toBeGreaterThan(before.fence ?? 0);
});

it('kubectl shows what it does', async () => {
  const line = (await cluster.kubectl('get', 'hup', 'plain', '-o', 'wide')).split('\n')[1]?.split(/\s{2,}/);
  expect(line?.slice(0, 6)).toEqual(['plain', C, 'Done', '4', '4', '0']);
  const events = await cluster.kubectl('get', 'events', '--field-selector', 'involvedObject.kind=HotUpgrade');
  expect(events).toContain('Done');
  expect(events).toContain('PolicyNotFound');
  expect(events).toContain('OtherHotUpgrade');
});
