import type { V1Pod } from '@kubernetes/client-node';
import { webhookConfiguration } from '@sluice/xds-server/inject/configuration';
import { type Injector, startInjection } from '@sluice/xds-server/inject/index';
import { webhookSchema } from '@sluice/xds-server/inject/webhook-config';
import { KubeClient } from '@sluice/xds-server/kube/client';
import { InPlaceProvider } from '@sluice/xds-server/kube/in-place-driver';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { MeshCluster } from '../harness/k8s/mesh-cluster.ts';
import { EMPTY_IMAGE, loadApp, sluice } from '../harness/k8s/mesh-images.ts';
import { podReady, watchReadiness } from '../harness/k8s/pods.ts';
import { SIDECAR_PORTS, SYSTEM_IMAGE } from '../harness/k8s/sidecar-pod.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { probeStatus } from '../harness/probes.ts';
import { until } from '../harness/process.ts';

const missing = (await missingTools()) ?? missingNodePackages();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

let mesh: MeshCluster;
let block: Block;
let injector: Injector;
const end = new AbortController();

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  mesh = await MeshCluster.start();
  const port = await block.port();
  const url = `https://127.0.0.1:${port}/inject`;
  await mesh.cluster.client.apply(
    webhookConfiguration({ name: 'sluice-injection', namespace: 'sluice-system', client: { url } }),
  );
  const { controller, xds } = mesh.controller;
  const config = webhookSchema.parse({
    sidecar: {
      image: sluice('1.39.3'),
      emptyImage: EMPTY_IMAGE,
      redirectImage: SYSTEM_IMAGE,
      pullPolicy: 'Never',
      bootstrap: { configMap: 'bootstrap' },
      controllers: [controller],
      xds,
      concurrency: 1,
    },
    listen: `127.0.0.1:${port}`,
    names: ['127.0.0.1'],
  });
  const client = new KubeClient(mesh.cluster.kubeConfig);
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  injector = startInjection({ client, namespace: 'sluice-system', config, log });
  void injector.lead(end.signal);
  await injector.serving;
});

afterAll(async () => {
  end.abort();
  await injector?.close();
  await mesh?.stop();
  await block?.release();
});

/** What a user writes: nothing of a sidecar, and no group for its volumes. */
function shop(name: string, native: boolean): V1Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      namespace: 'default',
      labels: { 'sluice.dev/inject': 'true' },
      annotations: { 'sluice.dev/native-sidecar': String(native) },
    },
    spec: {
      nodeName: mesh.node.name,
      containers: [{ ...loadApp(mesh.world), imagePullPolicy: 'Never', securityContext: { runAsUser: 65_534 } }],
    },
  };
}

it.each([
  ['plain', false],
  ['native', true],
])(
  'a Pod that the webhook gives %s sidecars: calls in and out go through it, and it is upgraded in place',
  async (name, native) => {
    const { client } = mesh.cluster;
    const pods = '/api/v1/namespaces/default/pods';
    // Until the API server has heard of the caBundle.
    const made = await until('the webhook', () => client.json<V1Pod>('POST', pods, shop(name, native)), {
      everyMs: 200,
    });
    const list = (native ? made.spec?.initContainers : made.spec?.containers) ?? [];
    expect(list.map((one) => one.name)).toContain('proxy-2');
    const { podIP = '' } = (await podReady(mesh.cluster, name, 'default', 90_000)).status ?? {};
    const server = (await fetch(`http://${podIP}:${SIDECAR_PORTS.app}/`)).headers.get('server');
    expect(server).toBe('envoy');

    const load = await mesh.load(podIP);
    const probes = probeStatus(SIDECAR_PORTS.status, 10, podIP);
    const readiness = watchReadiness(mesh.cluster, name);
    const provider = new InPlaceProvider(mesh.kube);
    const said: string[] = [];
    for (const version of ['1.40.0', '1.39.3']) {
      said.push(
        ...(await mesh.upgrade(name, provider, {
          container: 'proxy',
          emptyImage: EMPTY_IMAGE,
          image: sluice(version),
        })),
      );
      const before = load.inbound.answered;
      await until('the new epoch answers', () => (load.inbound.answered > before + 200 ? true : undefined));
    }
    const { inbound, outbound } = await load.stop();
    const { ok, failures } = await probes.stop();
    console.log(`${said.join('\n    ')}\nin ${inbound.answered}, out ${outbound.answered}; probes ${ok}`);
    console.log('not Ready:', JSON.stringify(readiness.stop().gaps));
    expect([inbound.failures, outbound.failures, failures]).toEqual([[], [], []]);
    expect(Math.min(inbound.answered, outbound.answered)).toBeGreaterThan(200);
    const after = await mesh.pod(name);
    const now = (native ? after.spec?.initContainers : after.spec?.containers) ?? [];
    expect(now.find((one) => one.name === 'proxy-1')?.image).toBe(sluice('1.39.3'));
    await client.delete(after);
    await client.gone(after);
  },
);
