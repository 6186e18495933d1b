import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { KubernetesObject, V1Pod } from '@kubernetes/client-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { bindPods } from '../harness/deploy/binder.ts';
import { buildImages, type Dockerfile, parseDockerfile } from '../harness/deploy/dockerfile.ts';
import { imageFromDockerfile } from '../harness/deploy/layers.ts';
import { CHART, DEPLOY, helm, SYSTEM } from '../harness/deploy/render.ts';
import { Services } from '../harness/deploy/services.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { type ImageSpec, shell } from '../harness/k8s/images.ts';
import { startKruise } from '../harness/k8s/kruise.ts';
import { Node } from '../harness/k8s/node.ts';
import { emptyImage } from '../harness/k8s/sidecar-pod.ts';
import { systemLayer } from '../harness/k8s/sluice-image.ts';
import { K8S_TOOLS, missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { type Child, until } from '../harness/process.ts';

const missing = (await missingTools([...K8S_TOOLS, 'helm'])) ?? missingNodePackages();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

let block: Block;
let cluster: Cluster;
let node: Node;
let services: Services;
let kruise: Child | undefined;
let binder: ReturnType<typeof bindPods>;

const dockerfile = (name: string, args: Record<string, string> = {}): Dockerfile => {
  const text = readFileSync(path.join(DEPLOY, 'images', `${name}.Dockerfile`), 'utf8');
  const parsed = parseDockerfile(text);
  return { ...parsed, args: { ...parsed.args, ...args } };
};

async function images(): Promise<ImageSpec[]> {
  const out = await buildImages(block.dir);
  const sidecar = async (version: string) => {
    const file = dockerfile('sidecar', { ENVOY_VERSION: version });
    return imageFromDockerfile(file, `docker.io/mesh/sluice-sidecar:${version}`, out, await envoyBinary(version));
  };
  return [
    imageFromDockerfile(dockerfile('controller'), 'docker.io/mesh/sluice-controller:0.1.0', out),
    await sidecar('1.39.3'),
    await sidecar('1.40.0'),
    { ...emptyImage(), name: 'docker.io/mesh/sluice-empty:0.1.0' },
    { name: 'docker.io/mesh/sluice-redirect:0.1.0', layers: [systemLayer()] },
    { name: 'docker.io/library/busybox:1.37', layers: [shell()] },
  ];
}

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  node = await Node.start(cluster, { images: await images() });
  services = await Services.start(cluster, node);
  binder = bindPods(cluster, [node.name]);
  await cluster.namespace(SYSTEM);
  await cluster.namespace('shop');
});

afterAll(async () => {
  binder?.stop();
  await kruise?.stop();
  await services?.stop();
  await node?.stop();
  await cluster?.stop();
  await block?.release();
});

type HotUpgrade = KubernetesObject & {
  readonly status?: { readonly phase?: string; readonly updated?: number; readonly reason?: string };
};

/** The sample as it is, but without its pauses, and it waits for a word to begin. */
function overlay(resources: string, patches: readonly object[] = []): string {
  const dir = path.join(block.dir, `overlay-${path.basename(resources)}`);
  mkdirSync(dir);
  const kustomization = { resources: [path.relative(dir, path.join(DEPLOY, resources))], patches };
  writeFileSync(path.join(dir, 'kustomization.yaml'), JSON.stringify(kustomization));
  return dir;
}
const QUICK = {
  target: { kind: 'HotUpgrade' },
  patch: JSON.stringify([
    { op: 'add', path: '/spec/strategy/paused', value: true },
    { op: 'replace', path: '/spec/strategy/pauseSeconds', value: 1 },
    { op: 'add', path: '/spec/analysis/windowSeconds', value: 3 },
  ]),
};

const pods = async (): Promise<V1Pod[]> =>
  (await cluster.client.core.listNamespacedPod({ namespace: 'shop', labelSelector: 'app=shop' })).items;
/** The images of the pair that run, such as `1.39.3 0.1.0`. */
const pairOf = ({ status }: V1Pod) =>
  ['proxy-1', 'proxy-2']
    .map((name) =>
      status?.containerStatuses
        ?.find((one) => one.name === name)
        ?.image.split(':')
        .at(-1),
    )
    .join(' ');

/** Applies a sample that waits, lets it begin under load, and says how its Pods end. */
async function upgraded(sample: string): Promise<void> {
  await cluster.kubectl('apply', '--server-side', '-k', overlay(sample, [QUICK]));
  await cluster.kubectl('-n', 'shop', 'rollout', 'status', 'deployment/shop', '--timeout=100s');
  const before = await pods();
  expect(before.map(pairOf)).toEqual(['1.39.3 0.1.0', '1.39.3 0.1.0', '1.39.3 0.1.0']);
  const address = before[0]?.status?.podIP ?? '';
  const load = newConnections(8080, 20, address);
  const stream = fetch(`http://${address}:8080/cgi-bin/slow?20`).then((answer) => answer.text());
  const start = JSON.stringify({ spec: { strategy: { paused: false } } });
  await cluster.kubectl('-n', 'shop', 'patch', 'hotupgrade', 'shop', '--type=merge', '-p', start);
  const done = await cluster.client.watch<HotUpgrade, HotUpgrade>(
    '/apis/sluice.dev/v1alpha1/namespaces/shop/hotupgrades',
    ({ object }) => (/^(Done|Failed|RolledBack)$/.test(object.status?.phase ?? '') ? object : undefined),
    { limitMs: 150_000 },
  );
  expect(done.status).toMatchObject({ phase: 'Done', updated: 3 });
  expect(await stream).toMatch(/\n20\nend\n$/);
  const { answered, refused, lost, failures } = await load.stop();
  expect({ refused, lost, failures }).toEqual({ refused: 0, lost: 0, failures: [] });
  expect(answered).toBeGreaterThan(100);
  const reset = async () => {
    const now = await pods();
    return now.every((pod) => pairOf(pod) === '0.1.0 1.40.0') ? now : undefined;
  };
  // `Done` is when the new ones serve (`until: Serving`); the old ones go when their drains are over.
  const after = await until('the old containers to be Empty', reset, { limitMs: 120_000, everyMs: 250 });
  // The same Pods: nothing was made anew.
  expect(after.map(uidOf).sort()).toEqual(before.map(uidOf).sort());
}

const uidOf = ({ metadata }: V1Pod): string => metadata?.uid ?? '';

it('chart, webhook, sample: three Pods are injected, and upgraded in place under load; nothing fails', async () => {
  const { code, stderr } = await helm(
    ['install', 'sluice', CHART, '--namespace', SYSTEM, '--wait', '--timeout', '120s'],
    { KUBECONFIG: cluster.kubeconfig() },
    { replicas: 2, injection: { enabled: true, sidecar: { image: 'mesh/sluice-sidecar:1.39.3', concurrency: 1 } } },
  );
  expect([code, stderr]).toEqual([0, '']);
  await services.open(SYSTEM, 'sluice-controller');
  await services.open(SYSTEM, 'sluice-webhook');
  await upgraded('sample/in-place');
}, 400_000);

it('the same with OpenKruise, by the SidecarSet of deploy/', async () => {
  await cluster.kubectl('-n', 'shop', 'delete', 'hotupgrade,deployment', 'shop', '--timeout=60s');
  await cluster.kubectl('-n', 'shop', 'wait', '--for=delete', 'pod', '--selector=app=shop', '--timeout=60s');
  kruise = await startKruise(cluster);
  // As the docs say: a Pod that is made before OpenKruise has seen the SidecarSet gets no sidecar.
  await cluster.kubectl('apply', '--server-side', '-k', path.join(DEPLOY, 'sidecarset'));
  const seen = '--for=jsonpath={.status.observedGeneration}=1';
  await cluster.kubectl('wait', seen, 'sidecarset/sluice-shop', '--timeout=60s');
  await upgraded('sample/kruise');
}, 400_000);
