import path from 'node:path';
import type { KubernetesObject, V1Pod } from '@kubernetes/client-node';
import type { RolloutView } from '@sluice/contract';
import type { HotUpgrade, HotUpgradeStatus } from '@sluice/xds-server/kube/hotupgrade';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { fleetBootstrap } from '../harness/k8s/fleet-bootstrap.ts';
import { FleetLoad } from '../harness/k8s/fleet-load.ts';
import { installSluice } from '../harness/k8s/installed.ts';
import { Leaders } from '../harness/k8s/leaders.ts';
import { Node } from '../harness/k8s/node.ts';
import { podReady } from '../harness/k8s/pods.ts';
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
/** One line of a log for each moment: the rollout is made, a Pod is ordered, its old epoch drains, is empty, is taken away. */
const MOMENTS = [
  '"event":"created"',
  '"step":"upgrade"',
  '"phase":"Draining"',
  '"phase":"SafeToReset"',
  '"step":"reset"',
];

let block: Block;
let cluster: Cluster;
let node: Node;
let leaders: Leaders;
let upstream: Child;
let control: string;

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  const kubeconfig = await installSluice(cluster);
  const sidecars = await sluiceImages(['1.39.3', '1.40.0']);
  node = await Node.start(cluster, {
    images: [...sidecars, { name: SYSTEM_IMAGE, layers: [systemLayer()] }, emptyImage()],
  });
  const host = node.gateway;
  const ports = { http: await block.port(), control: await block.port() };
  const other = { tcp: await block.port(), http2: await block.port(), grpc: await block.port(), host };
  const main = path.resolve(import.meta.dirname, '../harness/upstream/main.ts');
  const args = ['--conditions=sluice-source', main, JSON.stringify({ ...ports, ...other })];
  upstream = await start(process.execPath, args, { name: 'upstream', ready: /upstream ready/ });
  control = `http://${host}:${ports.control}`;
  leaders = await Leaders.start(block, { kubeconfig, host });
  await cluster.client.apply(bootstrapMap(fleetBootstrap(host, ports.http)));
  for (const name of NAMES) {
    const controller = { controller: `http://${leaders.api}`, xds: leaders.xds };
    const pod = { name, node: node.name, labels: { app: 'web' }, cpu: '50m', ...controller };
    await cluster.client.apply(sidecarPod({ ...pod, images: [OLD, EMPTY_IMAGE] }));
  }
}, 300_000);

afterAll(async () => {
  await node?.stop();
  await leaders?.stop();
  await upstream?.stop();
  await cluster?.stop();
  await block?.release();
});

/** Makes it the target, and resolves when that is over. */
async function upgradeTo(image: string): Promise<HotUpgradeStatus> {
  await cluster.client.apply({
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'HotUpgrade',
    metadata: { name: 'web', namespace: 'default' },
    spec: {
      selector: { matchLabels: { app: 'web' } },
      container: 'proxy',
      target: { image },
      emptyImage: EMPTY_IMAGE,
      strategy: { maxUnavailable: 1 },
    },
  } as KubernetesObject);
  return cluster.client.watch<HotUpgrade, HotUpgradeStatus>(
    '/apis/sluice.dev/v1alpha1/namespaces/default/hotupgrades',
    ({ object: { metadata, status } }) => {
      const isOver = /^(Done|RolledBack|Failed|Aborted)$/.test(status?.phase ?? '');
      return isOver && status?.observedGeneration === metadata?.generation ? status : undefined;
    },
    { limitMs: 180_000 },
  );
}

it('the leader is killed at each step of a HotUpgrade, five times: the next one goes on, each Pod is begun once, no request fails', async () => {
  const ready = await Promise.all(NAMES.map((name) => podReady(cluster, name, 'default', 150_000)));
  const ask = async <T>(url: string) => (await (await fetch(`http://${leaders.api}/api/v1${url}`)).json()) as T;
  const heard = async () => {
    const { items } = await ask<{ items: { agents: { connected: boolean }[] }[] }>('/proxies');
    return items.filter((one) => one.agents.some(({ connected }) => connected)).length === NAMES.length || undefined;
  };
  await until('every agent is heard', heard, { limitMs: 60_000 });
  const targets = ready.map(({ metadata, status }) => ({ name: metadata?.name ?? '', host: status?.podIP ?? '' }));
  const load = new FleetLoad(targets, SIDECAR_PORTS.app);
  await until('the load is answered', () => (load.answered > 30 ? true : undefined), { limitMs: 30_000 });

  leaders.killAt(MOMENTS);
  for (const image of [NEW, OLD]) {
    const there = await upgradeTo(image);
    expect(there).toMatchObject({ phase: 'Done', image, total: 3, updated: 3, draining: 0, failed: 0 });
    const { record = [] } = await ask<RolloutView>(`/rollouts/${there.rollout}`);
    expect(record.map(({ seq }) => seq)).toEqual(record.map((_, n) => n));
    const begun = record.filter(({ event }) => event === 'started').map(({ member }) => member);
    expect(begun.toSorted()).toEqual(NAMES.map((name) => `${name}.default`));
  }
  leaders.check();
  expect(leaders.kills.map(({ when }) => when)).toEqual(MOMENTS);

  const { answered, failures } = await load.stop(control);
  console.log(`${answered} answered; killed: ${leaders.kills.map(({ killed }) => killed.at(-1)).join(', ')}`);
  expect(failures).toEqual([]);
  const url = '/api/v1/namespaces/default/pods?labelSelector=app%3Dweb';
  const { items } = await cluster.client.json<{ items: V1Pod[] }>('GET', url);
  expect(items.map(({ metadata }) => metadata?.uid)).toEqual(ready.map(({ metadata }) => metadata?.uid));
}, 500_000);
