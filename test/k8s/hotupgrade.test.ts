import path from 'node:path';
import type { KubernetesObject, V1Pod } from '@kubernetes/client-node';
import type { RolloutView } from '@sluice/contract';
import type { HotUpgrade, HotUpgradeStatus } from '@sluice/xds-server/kube/hotupgrade';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { fleetBootstrap } from '../harness/k8s/fleet-bootstrap.ts';
import { FleetLoad } from '../harness/k8s/fleet-load.ts';
import { installSluice, startKubeController } from '../harness/k8s/installed.ts';
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
import { type Child, start, until } from '../harness/process.ts';

const missing =
  (await missingTools(['etcd', 'kube-apiserver', 'kube-controller-manager', 'kubelet'])) ?? missingNodePackages();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

const NAMES = ['web-0', 'web-1', 'web-2'];
const OLD = 'sluice.test/sluice:1.39.3';
const NEW = 'sluice.test/sluice:1.40.0';

let block: Block;
let cluster: Cluster;
let node: Node;
let api: string;
let control: string;
const children: Child[] = [];

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  const kubeconfig = await installSluice(cluster);
  const images = [
    ...(await sluiceImages(['1.39.3', '1.40.0'])),
    { name: SYSTEM_IMAGE, layers: [systemLayer()] },
    emptyImage(),
  ];
  node = await Node.start(cluster, { images });
  const host = node.gateway;
  const ports = { http: await block.port(), control: await block.port() };
  const other = { tcp: await block.port(), http2: await block.port(), grpc: await block.port(), host };
  const main = path.resolve(import.meta.dirname, '../harness/upstream/main.ts');
  const args = ['--conditions=sluice-source', main, JSON.stringify({ ...ports, ...other })];
  children.push(await start(process.execPath, args, { name: 'upstream', ready: /upstream ready/ }));
  control = `http://${host}:${ports.control}`;
  const [listen, xds] = [`${host}:${await block.port()}`, `${host}:${await block.port()}`];
  const log = process.env.SLUICE_K8S_LOG;
  children.push(await startKubeController({ kubeconfig, api: listen, xds, ...(log !== undefined && { log }) }));
  api = `http://${listen}`;
  await cluster.client.apply(bootstrapMap(fleetBootstrap(host, ports.http)));
  for (const name of NAMES) {
    const pod = { name, node: node.name, labels: { app: 'web' }, cpu: '50m', controller: api, xds };
    await cluster.client.apply(sidecarPod({ ...pod, images: [OLD, EMPTY_IMAGE] }));
  }
  const policy = {
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'DrainPolicy',
    metadata: { name: 'quick', namespace: 'default' },
  };
  await cluster.client.apply({ ...policy, spec: { http1: { silentIdleGraceMs: 1_234 } } } as KubernetesObject);
}, 300_000);

afterAll(async () => {
  await node?.stop();
  for (const child of children) await child.stop();
  await cluster?.stop();
  await block?.release();
});

const hotUpgrade = (target: object): KubernetesObject & { spec: object } => ({
  apiVersion: 'sluice.dev/v1alpha1',
  kind: 'HotUpgrade',
  metadata: { name: 'web', namespace: 'default' },
  spec: {
    selector: { matchLabels: { app: 'web' } },
    container: 'proxy',
    target,
    emptyImage: EMPTY_IMAGE,
    policy: { name: 'quick' },
    strategy: { canaryPods: ['web-1'], maxUnavailable: 1 },
  },
});

/** Resolves when it is over. */
function over(): Promise<HotUpgradeStatus> {
  const seen: string[] = [];
  return cluster.client
    .watch<HotUpgrade, HotUpgradeStatus>(
      '/apis/sluice.dev/v1alpha1/namespaces/default/hotupgrades',
      ({ object: { metadata, status } }) => {
        const line = `${status?.phase} ${status?.reason}`;
        if (seen.at(-1) !== line) seen.push(line);
        const isOver = /^(Done|RolledBack|Failed|Aborted)$/.test(status?.phase ?? '');
        return isOver && status?.observedGeneration === metadata?.generation ? status : undefined;
      },
      { limitMs: 150_000 },
    )
    .catch((error: Error) => {
      throw new Error(`${error.message.slice(0, 200)}\n${seen.join('\n')}`);
    });
}

async function ask<T>(url: string): Promise<T> {
  const response = await fetch(`${api}/api/v1${url}`, { signal: AbortSignal.timeout(10_000) });
  if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`);
  return (await response.json()) as T;
}

async function images(): Promise<(string | undefined)[][]> {
  const url = '/api/v1/namespaces/default/pods?labelSelector=app%3Dweb';
  const { items } = await cluster.client.json<{ items: V1Pod[] }>('GET', url);
  const of = (pod: V1Pod) => [1, 2].map((n) => pod.spec?.containers.find(({ name }) => name === `proxy-${n}`)?.image);
  return items.map(of);
}

it('a canary, then all of them, then back, on a real node under load: no request fails', async () => {
  const ready = await Promise.all(NAMES.map((name) => podReady(cluster, name, 'default', 150_000)));
  const heard = async () => {
    const { items } = await ask<{ items: { agents: { connected: boolean }[] }[] }>('/proxies');
    return items.filter((one) => one.agents.some(({ connected }) => connected)).length === NAMES.length || undefined;
  };
  await until('every agent is heard', heard, { limitMs: 30_000 });
  const targets = ready.map(({ metadata, status }) => ({ name: metadata?.name ?? '', host: status?.podIP ?? '' }));
  const load = new FleetLoad(targets, SIDECAR_PORTS.app);
  await until('the load is answered', () => (load.answered > 30 ? true : undefined), { limitMs: 30_000 });
  const readiness = NAMES.map((name) => watchReadiness(cluster, name));

  await cluster.client.apply(hotUpgrade({ version: '1.40.0' }));
  const there = await over();
  expect(there).toMatchObject({ phase: 'Done', image: NEW, total: 3, updated: 3, draining: 0, failed: 0 });
  expect(await images()).toEqual(NAMES.map(() => [EMPTY_IMAGE, NEW]));
  const { record = [] } = await ask<RolloutView>(`/rollouts/${there.rollout}`);
  const begun = record.filter(({ event }) => event === 'started').map(({ member }) => member);
  expect(begun[0]).toBe('web-1.default');
  expect(new Set(begun).size).toBe(3);
  const { items: upgrades } = await ask<{ items: { policy: { http1: { silentIdleGraceMs: number } } }[] }>('/upgrades');
  expect(upgrades.map(({ policy }) => policy.http1.silentIdleGraceMs)).toEqual([1_234, 1_234, 1_234]);

  await cluster.client.apply(hotUpgrade({ image: OLD }));
  expect(await over()).toMatchObject({ phase: 'Done', image: OLD, updated: 3, failed: 0 });
  expect(await images()).toEqual(NAMES.map(() => [OLD, EMPTY_IMAGE]));

  const gaps = readiness.flatMap((one) => one.stop().gaps.map(({ ms }) => ms));
  const { answered, failures } = await load.stop(control);
  console.log(`${answered} answered; not Ready for ${gaps.join(', ')} ms`);
  expect(failures).toEqual([]);
  const pods = await Promise.all(NAMES.map((name) => podReady(cluster, name)));
  expect(pods.map(({ metadata }) => metadata?.uid)).toEqual(ready.map(({ metadata }) => metadata?.uid));
}, 400_000);
