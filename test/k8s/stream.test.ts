import type { V1Pod } from '@kubernetes/client-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { type GrpcStream, grpcStream } from '../harness/k8s/grpc-stream.ts';
import { applySet } from '../harness/k8s/kruise.ts';
import { MeshCluster } from '../harness/k8s/mesh-cluster.ts';
import { bare, EMPTY_IMAGE, late, loadApp, sluice } from '../harness/k8s/mesh-images.ts';
import { APP_PORTS } from '../harness/k8s/mesh-ports.ts';
import { podReady, watchReadiness } from '../harness/k8s/pods.ts';
import { appPod, type SetOptions, SIDECAR_PORTS, sidecarSet } from '../harness/k8s/sidecar-pod.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { probeStatus } from '../harness/probes.ts';

const missing = (await missingTools()) ?? missingNodePackages();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

const STREAM_MS = 60_000;
const GRACE_S = 120;

let mesh: MeshCluster;

beforeAll(async () => {
  if (missing === undefined) mesh = await MeshCluster.start();
});

afterAll(async () => {
  await mesh?.stop();
});

type Image = (version: string) => string;
const PODS = '/api/v1/namespaces/default/pods';
const imageOf = (pod: V1Pod, container: string) => pod.spec?.containers.find(({ name }) => name === container)?.image;

/** Resolves with the Pod when OpenKruise has made the old container Empty; `runs`: when its kubelet has. */
function reset(name: string, runs: boolean): Promise<V1Pod> {
  const empty = ({ status }: V1Pod) =>
    status?.containerStatuses?.some((one) => one.name === 'proxy-1' && one.image === EMPTY_IMAGE && one.ready);
  return mesh.cluster.client.watch<V1Pod, V1Pod>(
    PODS,
    ({ object }) => (imageOf(object, 'proxy-1') === EMPTY_IMAGE && (!runs || empty(object)) ? object : undefined),
    { limitMs: 150_000, fieldSelector: `metadata.name=${name}` },
  );
}

interface Shown {
  readonly stream: GrpcStream;
  readonly probes: ReturnType<typeof probeStatus>;
  readonly readiness: ReturnType<typeof watchReadiness>;
  /** Milliseconds from the change of the image. */
  readonly resetMs: number;
}

/** A Pod with a stream of its own; OpenKruise alone upgrades it, from the SidecarSet's image to the next. */
async function upgraded(name: string, from: string, to: string, more: SetOptions = {}): Promise<Shown> {
  const { client } = mesh.cluster;
  const labels = { app: name };
  const set = (image: string) => sidecarSet(image, labels, { name, graceSeconds: GRACE_S, ...more });
  await applySet(mesh.cluster, set(from));
  const app = loadApp(mesh.world);
  await client.apply(appPod({ name, node: mesh.node.name, labels, graceSeconds: GRACE_S, app }));
  const { podIP = '' } = (await podReady(mesh.cluster, name)).status ?? {};
  const readiness = watchReadiness(mesh.cluster, name);
  const probes = probeStatus(SIDECAR_PORTS.status, 20, podIP);
  const stream = grpcStream(`${podIP}:${APP_PORTS.grpc}`, STREAM_MS);
  await stream.begun;
  const begun = performance.now();
  await client.apply(set(to));
  await reset(name, false);
  return { stream, probes, readiness, resetMs: Math.round(performance.now() - begun) };
}

const versions = (image: Image) => [image('1.39.3'), image('1.40.0')] as const;

it.concurrent('a gRPC stream of 60 s outlives the reset of OpenKruise: the old container waits for it', async () => {
  // Without a controller too.
  const { stream, probes, readiness, resetMs } = await upgraded('held', ...versions(sluice));
  const end = await stream.end;
  const stillOld = (await mesh.pod('held')).status?.containerStatuses?.find(({ name }) => name === 'proxy-1')?.image;
  await reset('held', true);
  const { gaps } = readiness.stop();
  const { ok, failures } = await probes.stop();
  console.log(
    `held preStop: reset after ${resetMs} ms, ${JSON.stringify(end)}, probes ${ok}, not Ready ${JSON.stringify(gaps)}`,
  );
  expect(resetMs).toBeLessThan(STREAM_MS);
  expect(stillOld).toBe(sluice('1.39.3'));
  expect(end).toMatchObject({ code: 0, echoed: end.sent });
  expect(end.ms).toBeGreaterThanOrEqual(STREAM_MS);
  expect(failures).toEqual([]);
});

it.concurrent('without the agents, in the same Pod, OpenKruise cuts it', async () => {
  // Nobody has the status port, and both containers are ready at once.
  const readinessProbe = { exec: { command: ['sluice', 'agent', 'status'] }, periodSeconds: 1 };
  const { stream, probes, resetMs } = await upgraded('bare', ...versions(bare), { override: { readinessProbe } });
  const end = await stream.end;
  await probes.stop();
  console.log(`without agents: reset after ${resetMs} ms, ${JSON.stringify(end)}`);
  expect(end.code).toBe(14);
  expect(end.ms).toBeLessThan(STREAM_MS);
});

it.concurrent('a long postStart: the Pod is as Ready as with a held preStop', async () => {
  const { stream, probes, readiness, resetMs } = await upgraded(
    'late',
    sluice('1.39.3'),
    late('1.40.0'),
    mesh.controller,
  );
  const end = await stream.end;
  await reset('late', true);
  const { gaps } = readiness.stop();
  const { ok, failures } = await probes.stop();
  console.log(
    `long postStart: reset after ${resetMs} ms, ${JSON.stringify(end)}, probes ${ok}, not Ready ${JSON.stringify(gaps)}`,
  );
  expect(end).toMatchObject({ code: 0, echoed: end.sent });
  expect(failures).toEqual([]);
});
