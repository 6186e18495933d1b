import path from 'node:path';
import type { KubernetesObject, V1Pod } from '@kubernetes/client-node';
import type { RolloutView } from '@sluice/contract';
import { API_VERSION } from '@sluice/xds-server/kube/crds';
import type { HotUpgrade } from '@sluice/xds-server/kube/hotupgrade';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { fleetBootstrap } from '../harness/k8s/fleet-bootstrap.ts';
import { FleetLoad } from '../harness/k8s/fleet-load.ts';
import { type ImageSpec, program } from '../harness/k8s/images.ts';
import { installSluice, startKubeController } from '../harness/k8s/installed.ts';
import { Node } from '../harness/k8s/node.ts';
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

const COUNT = 20;
const MAX_UNAVAILABLE = 2;
const OLD = 'sluice.test/sluice:1.39.3';
const BAD = 'sluice.test/sluice:bad';
const NAMES = Array.from({ length: COUNT }, (_, n) => `fleet-${n}`);

/**
 * An image that is good in the first four Pods. In the others its Envoy refuses the bootstrap when it is asked (even ones), or
 * dies when it is started (odd ones).
 */
const FLAW = `#!/bin/sh
real=/opt/real/envoy
case "$(hostname)" in
  fleet-[0-3]) exec $real "$@";;
esac
case "$*" in *--version*|*--hot-restart-version*) exec $real "$@";; esac
case "$(hostname) $*" in *[13579]" "*--mode*validate*) exec $real "$@";; esac
echo "this image is not for $(hostname)" >&2
exit 1
`;

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
  node = await Node.start(cluster, { images: await images() });
  const host = node.gateway;
  const ports = { http: await block.port(), control: await block.port() };
  const other = { tcp: await block.port(), http2: await block.port(), grpc: await block.port(), host };
  const main = path.resolve(import.meta.dirname, '../harness/upstream/main.ts');
  const args = ['--conditions=sluice-source', main, JSON.stringify({ ...ports, ...other })];
  children.push(await start(process.execPath, args, { name: 'upstream', ready: /upstream ready/ }));
  control = `http://${host}:${ports.control}`;
  const [listen, xds] = [`${host}:${await block.port()}`, `${host}:${await block.port()}`];
  const policy = { http1: { silentIdleGraceMs: 1_000 } };
  const log = process.env.SLUICE_K8S_LOG;
  const more = log === undefined ? {} : { log };
  children.push(await startKubeController({ kubeconfig, api: listen, xds, config: { policy }, ...more }));
  api = `http://${listen}`;
  await cluster.client.apply(bootstrapMap(fleetBootstrap(host, ports.http)));
  for (const name of NAMES) {
    const pod = { name, node: node.name, labels: { app: 'fleet' }, cpu: '10m', controller: api, xds };
    await cluster.client.apply(sidecarPod({ ...pod, images: [OLD, EMPTY_IMAGE] }));
  }
}, 300_000);

afterAll(async () => {
  await node?.stop();
  for (const child of children) await child.stop();
  await cluster?.stop();
  await block?.release();
});

async function images(): Promise<ImageSpec[]> {
  const [old] = await sluiceImages(['1.39.3']);
  const flawed = [
    program(await envoyBinary('1.40.0'), '/opt/real/envoy'),
    [{ path: '/opt/envoy/1.40.0/envoy', text: FLAW, mode: 0o755 }],
  ];
  const bad = {
    ...(old as ImageSpec),
    name: BAD,
    layers: [...(old as ImageSpec).layers.slice(0, -1), ...flawed],
    env: ['SLUICE_ENVOYS=/opt/envoy', 'SLUICE_ENVOY=1.40.0'],
  };
  return [old as ImageSpec, bad, { name: SYSTEM_IMAGE, layers: [systemLayer()] }, emptyImage()];
}

async function pods(): Promise<V1Pod[]> {
  const { items } = await cluster.client.json<{ items: V1Pod[] }>(
    'GET',
    '/api/v1/namespaces/default/pods?labelSelector=app%3Dfleet',
  );
  return items;
}

const isReady = ({ status }: V1Pod) =>
  status?.conditions?.some((one) => one.type === 'Ready' && one.status === 'True') ?? false;

const allReady = (): Promise<V1Pod[]> =>
  until(
    `${COUNT} Pods are Ready`,
    async () => {
      const all = await pods();
      return all.length === COUNT && all.every(isReady) ? all : undefined;
    },
    { limitMs: 150_000, everyMs: 500 },
  );

async function ask<T>(url: string): Promise<T> {
  const response = await fetch(`${api}/api/v1${url}`, { signal: AbortSignal.timeout(10_000) });
  if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`);
  return (await response.json()) as T;
}

const hotUpgrade: KubernetesObject & { spec: object } = {
  apiVersion: API_VERSION,
  kind: 'HotUpgrade',
  metadata: { name: 'fleet', namespace: 'default' },
  spec: {
    selector: { matchLabels: { app: 'fleet' } },
    container: 'proxy',
    target: { image: BAD },
    emptyImage: EMPTY_IMAGE,
    policy: { inline: { http1: { silentIdleGraceMs: 1_000 } } },
    // Canary fleet-0, then fleet-1 to 3, which are good; with the second batch begin those that are not.
    strategy: { maxUnavailable: MAX_UNAVAILABLE, canary: 1, batches: [4, 12] },
    analysis: { maxFailedUpgrades: 0, onFailure: 'Rollback' },
  },
};

/** The most members that were in an upgrade, or on their way back, at once: by the record of the rollout. */
function mostAtOnce({ record = [] }: RolloutView): number {
  const busy = new Set<string>();
  let most = 0;
  for (const { event, member } of record) {
    if (member === undefined) continue;
    if (event === 'started' || event === 'flipping') busy.add(member);
    if (['serving', 'upgraded', 'failed', 'rolled-back', 'stuck'].includes(event)) busy.delete(member);
    most = Math.max(most, busy.size);
  }
  return most;
}

it(`a bad image in the second batch of ${COUNT} Pods stops the rollout and is rolled back: nothing fails`, async () => {
  const ready = await allReady();
  const load = new FleetLoad(
    ready.map(({ metadata, status }) => ({ name: metadata?.name ?? '', host: status?.podIP ?? '' })),
    SIDECAR_PORTS.app,
  );
  await until('the load is answered', () => (load.answered > 10 * COUNT ? true : undefined), { limitMs: 30_000 });
  await until(
    'every agent is heard',
    async () => {
      const { items } = await ask<{
        readonly items: readonly { readonly agents: readonly { readonly connected: boolean }[] }[];
      }>('/proxies');
      return items.filter((one) => one.agents.some(({ connected }) => connected)).length === COUNT ? true : undefined;
    },
    { limitMs: 30_000 },
  );
  await cluster.client.apply(hotUpgrade);
  const over = await until(
    'the HotUpgrade is over',
    async () => {
      const { status } = await cluster.client.get<HotUpgrade>(hotUpgrade);
      return status?.phase === 'RolledBack' || status?.phase === 'Failed' || status?.phase === 'Done'
        ? status
        : undefined;
    },
    { limitMs: 300_000, everyMs: 500 },
  );
  const view = await ask<RolloutView>(`/rollouts/${over.rollout}`);
  const record = view.record?.map(({ at, text }) => `${Math.round((at - view.createdAt) / 1000)} s ${text}`).join('\n');
  console.log(record);
  expect(over.phase).toBe('RolledBack');
  expect(over.reason).toMatch(/^analysis: [12] failed upgrades, at most 0 allowed/);
  // The old epochs of the flips back have ended too.
  const after = await until(
    'every Pod has the old image and the Empty one',
    async () => {
      const all = await pods();
      const image = (pod: V1Pod, slot: number) =>
        pod.spec?.containers.find(({ name }) => name === `proxy-${slot}`)?.image;
      const back = all.every((pod) =>
        [OLD, EMPTY_IMAGE].every((one) => one === image(pod, 1) || one === image(pod, 2)),
      );
      return back && all.every(isReady) ? all : undefined;
    },
    { limitMs: 60_000, everyMs: 500 },
  );
  const { answered, failures } = await load.stop(control);
  console.log(`${answered} answered`);
  expect(failures).toEqual([]);
  expect(answered).toBeGreaterThan(1_000);
  expect(after.map(({ metadata }) => metadata?.uid).sort()).toEqual(ready.map(({ metadata }) => metadata?.uid).sort());
  const started = view.record?.filter(({ event }) => event === 'started').map(({ member }) => member?.split('.')[0]);
  expect(started?.slice(0, 4)).toEqual(['fleet-0', 'fleet-1', 'fleet-2', 'fleet-3']);
  // Whoever was begun in the second batch before its first failure was known, and nobody after it.
  expect(started?.length).toBeGreaterThan(4);
  expect(started?.length).toBeLessThanOrEqual(4 + MAX_UNAVAILABLE);
  expect(mostAtOnce(view)).toBe(MAX_UNAVAILABLE);
  const condition = (type: string) => over.conditions?.find((one) => one.type === type);
  expect(condition('Complete')?.status).toBe('False');
  expect(over.conditions?.map(({ message }) => message).join('\n')).toContain('failed upgrades, at most 0 allowed');
}, 480_000);
