import { InPlaceProvider } from '@sluice/xds-server/kube/in-place-driver';
import { OpenKruiseProvider } from '@sluice/xds-server/kube/open-kruise-driver';
import type { Provider } from '@sluice/xds-server/kube/provider';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { applySet } from '../harness/k8s/kruise.ts';
import { MeshCluster } from '../harness/k8s/mesh-cluster.ts';
import { EMPTY_IMAGE, loadApp, sluice } from '../harness/k8s/mesh-images.ts';
import { podReady, watchReadiness } from '../harness/k8s/pods.ts';
import { appPod, SIDECAR_PORTS, sidecarPod, sidecarSet } from '../harness/k8s/sidecar-pod.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { probeStatus } from '../harness/probes.ts';
import { until } from '../harness/process.ts';

const missing = (await missingTools()) ?? missingNodePackages();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

let mesh: MeshCluster;

beforeAll(async () => {
  if (missing === undefined) mesh = await MeshCluster.start();
});

afterAll(async () => {
  await mesh?.stop();
});

const CYCLE = ['1.40.0', '1.39.3', '1.40.0'];
const labels = { app: 'shop' };
const wishFor = (version: string) => ({ container: 'proxy', emptyImage: EMPTY_IMAGE, image: sluice(version) });

/** Three upgrades under load both ways through REDIRECT; each step is the provider's. */
async function cycle(name: string, provider: Provider, podIP: string): Promise<void> {
  const begun = performance.now();
  const load = await mesh.load(podIP);
  const probes = probeStatus(SIDECAR_PORTS.status, 10, podIP);
  const readiness = watchReadiness(mesh.cluster, name);
  const uid = (await mesh.pod(name)).metadata?.uid;
  for (const [n, version] of CYCLE.entries()) {
    const wish = wishFor(version);
    const selector = { matchLabels: labels };
    const fleet = { namespace: 'default', selector, container: 'proxy', image: wish.image, back: false, paused: false };
    const ready = await provider.prepare?.({ ...fleet, maxUnavailable: 1, until: 'reset' });
    expect(ready ?? { type: 'ready' }).toMatchObject({ type: 'ready' });
    const said = await mesh.upgrade(name, provider, wish);
    console.log(`${provider.name} ${n + 1}: ${said.join('\n    ')}`);
    const before = load.inbound.answered;
    await until('the new epoch answers', () => (load.inbound.answered > before + 200 ? true : undefined));
  }
  const { inbound, outbound } = await load.stop();
  const { ok, failures, texts } = await probes.stop();
  const seconds = Math.round((performance.now() - begun) / 1000);
  const { gaps } = readiness.stop();
  console.log(
    `${provider.name}: ${seconds} s; in ${inbound.answered}, out ${outbound.answered} (lag ${outbound.lagMs} ms, SYNs again ${outbound.synRetrans}); probes ${ok}; not Ready ${JSON.stringify(gaps)}`,
  );
  expect(inbound.failures).toEqual([]);
  expect(outbound.failures).toEqual([]);
  expect(Math.min(inbound.answered, outbound.answered)).toBeGreaterThan(1_000);
  expect(failures).toEqual([]);
  // From slot to slot and back: each new one has answered probes.
  expect(new Set(texts.map((text) => /slot \d/.exec(text)?.[0]))).toEqual(new Set(['slot 1', 'slot 2']));
  const after = await mesh.pod(name);
  expect(after.metadata?.uid).toBe(uid);
  expect(after.spec?.containers.find((one) => one.name === 'proxy-2')?.image).toBe(sluice('1.40.0'));
}

it('in place, three times in a row: nothing fails, inbound and outbound, and no probe is refused', async () => {
  const images = [sluice('1.39.3'), EMPTY_IMAGE] as const;
  const app = loadApp(mesh.world);
  const pod = sidecarPod({ name: 'direct', node: mesh.node.name, images, app, ...mesh.controller });
  await mesh.cluster.client.apply(pod);
  const { podIP = '' } = (await podReady(mesh.cluster, 'direct')).status ?? {};
  await cycle('direct', new InPlaceProvider(mesh.kube), podIP);
  await mesh.cluster.client.delete(pod, 0);
});

it('by OpenKruise, three times in a row: the same', async () => {
  await applySet(mesh.cluster, sidecarSet(sluice('1.39.3'), labels, mesh.controller));
  await mesh.cluster.client.apply(appPod({ name: 'shop', node: mesh.node.name, labels, app: loadApp(mesh.world) }));
  const { podIP = '' } = (await podReady(mesh.cluster, 'shop')).status ?? {};
  await cycle('shop', new OpenKruiseProvider(mesh.kube, 'sidecar'), podIP);
});
