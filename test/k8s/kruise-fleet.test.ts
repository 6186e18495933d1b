import path from 'node:path';
import type { KubernetesObject, V1Pod } from '@kubernetes/client-node';
import type { HotUpgrade, HotUpgradeStatus } from '@sluice/xds-server/kube/hotupgrade';
import type { SidecarSet } from '@sluice/xds-server/kube/open-kruise';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { fleetBootstrap } from '../harness/k8s/fleet-bootstrap.ts';
import { FleetLoad } from '../harness/k8s/fleet-load.ts';
import { installSluice, startKubeController } from '../harness/k8s/installed.ts';
import { applySet, startKruise } from '../harness/k8s/kruise.ts';
import { Node } from '../harness/k8s/node.ts';
import { podReady } from '../harness/k8s/pods.ts';
import {
  appPod,
  bootstrapMap,
  emptyImage,
  SIDECAR_PORTS,
  SYSTEM_IMAGE,
  sidecarSet,
} from '../harness/k8s/sidecar-pod.ts';
import { sluiceImages, systemLayer } from '../harness/k8s/sluice-image.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { type Child, start, until } from '../harness/process.ts';

const missing = (await missingTools()) ?? missingNodePackages();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

const NAMES = ['web-0', 'web-1', 'web-2'];
const LABELS = { app: 'web' };
const OLD = 'sluice.test/sluice:1.39.3';
const NEW = 'sluice.test/sluice:1.40.0';

let block: Block;
let cluster: Cluster;
let node: Node;
let control: string;
const children: Child[] = [];

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  const kubeconfig = await installSluice(cluster);
  children.push(await startKruise(cluster));
  const images = await sluiceImages(['1.39.3', '1.40.0']);
  node = await Node.start(cluster, {
    images: [...images, { name: SYSTEM_IMAGE, layers: [systemLayer()] }, emptyImage()],
  });
  const host = node.gateway;
  const ports = { http: await block.port(), control: await block.port(), host };
  control = `http://${host}:${ports.control}`;
  const other = { tcp: await block.port(), http2: await block.port(), grpc: await block.port() };
  const main = path.resolve(import.meta.dirname, '../harness/upstream/main.ts');
  const args = ['--conditions=sluice-source', main, JSON.stringify({ ...ports, ...other })];
  children.push(await start(process.execPath, args, { name: 'upstream', ready: /upstream ready/ }));
  const [listen, xds] = [`${host}:${await block.port()}`, `${host}:${await block.port()}`];
  children.push(await startKubeController({ kubeconfig, api: listen, xds }));
  await cluster.client.apply(bootstrapMap(fleetBootstrap(host, ports.http)));
  const set = sidecarSet(OLD, LABELS, { name: 'web', controller: `http://${listen}`, xds, cpu: '50m' });
  await applySet(cluster, set);
  for (const name of NAMES) await cluster.client.apply(appPod({ name, node: node.name, labels: LABELS }));
}, 300_000);

afterAll(async () => {
  await node?.stop();
  for (const child of children) await child.stop();
  await cluster?.stop();
  await block?.release();
});

const hotUpgrade = (image: string): KubernetesObject & { spec: object } => ({
  apiVersion: 'sluice.dev/v1alpha1',
  kind: 'HotUpgrade',
  metadata: { name: 'web', namespace: 'default' },
  spec: {
    selector: { matchLabels: LABELS },
    container: 'proxy',
    target: { image },
    provider: 'OpenKruise',
    sidecarSet: 'web',
    policy: { inline: { http1: { silentIdleGraceMs: 1_000 } } },
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
        const line = `${status?.phase} ${status?.reason} ${JSON.stringify(status?.conditions?.map((c) => c.message))}`;
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

it('a HotUpgrade by OpenKruise: the canary that was named, then all, then back; no request fails', async () => {
  const ready = await Promise.all(NAMES.map((name) => podReady(cluster, name, 'default', 120_000)));
  const targets = ready.map(({ metadata, status }) => ({ name: metadata?.name ?? '', host: status?.podIP ?? '' }));
  const load = new FleetLoad(targets, SIDECAR_PORTS.app);
  await until('the load is answered', () => (load.answered > 30 ? true : undefined), { limitMs: 30_000 });
  /** Pods in the order in which the new image came to them. */
  const order: string[] = [];
  const stop = cluster.client.events<V1Pod>('/api/v1/namespaces/default/pods', ({ object }) => {
    const { name = '' } = object.metadata ?? {};
    const has = object.spec?.containers.some(({ image }) => image === NEW);
    if (has && !order.includes(name)) order.push(name);
  });

  await cluster.client.apply(hotUpgrade(NEW));
  expect(await over()).toMatchObject({ phase: 'Done', total: 3, updated: 3 });
  stop();
  expect(order[0]).toBe('web-1');
  expect(order).toHaveLength(3);
  const metadata = { name: 'web' };
  const set = () =>
    cluster.client.get<SidecarSet>({ apiVersion: 'apps.kruise.io/v1alpha1', kind: 'SidecarSet', metadata });
  await until('the set is at rest', async () => ((await set()).spec?.updateStrategy?.selector ? undefined : true));
  expect((await set()).spec).toMatchObject({
    containers: [{ image: NEW }],
    updateStrategy: { partition: 0, maxUnavailable: 1, paused: false },
  });

  await cluster.client.apply(hotUpgrade(OLD));
  expect(await over()).toMatchObject({ phase: 'Done', updated: 3 });
  const { answered, failures } = await load.stop(control);
  console.log(`${answered} answered`);
  expect(failures).toEqual([]);
}, 400_000);
