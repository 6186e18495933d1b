import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import type { KubernetesObject, V1MutatingWebhookConfiguration } from '@kubernetes/client-node';
import { type Child, until } from '../process.ts';
import { startBound } from './bound.ts';
import type { Cluster } from './cluster.ts';
import { kruiseConfigDir, toolPath } from './tools.ts';

const NAMESPACE = 'kruise-system';
const READY_MS = 90_000;
/** The manager runs beside the API server and not in a Pod; the daemon of its nodes is not needed for SidecarSets. */
const NOT_HERE = ['Deployment', 'DaemonSet'];

/**
 * Starts the real OpenKruise manager with its own manifests, roles and webhooks: when this resolves, each Pod that is created goes
 * through its webhook. It ends with `stop` or with us.
 */
export async function startKruise(cluster: Cluster): Promise<Child> {
  await applyManifests(cluster);
  const dir = path.join(cluster.dir, 'kruise');
  mkdirSync(dir);
  const webhook = await cluster.block.port();
  const health = await cluster.block.port();
  const metrics = await cluster.block.port();
  const manager = await startBound(
    toolPath('kruise-manager'),
    [
      '--enable-leader-election=false',
      '--enable-pprof=false',
      `--metrics-addr=127.0.0.1:${metrics}`,
      `--health-probe-addr=127.0.0.1:${health}`,
      '--v=3',
    ],
    {
      name: 'kruise-manager',
      log: path.join(cluster.dir, 'kruise.log'),
      env: {
        ...process.env,
        KUBECONFIG: await cluster.serviceAccountKubeconfig(NAMESPACE, 'kruise-manager'),
        POD_NAMESPACE: NAMESPACE,
        // With a host it writes its certificates to the folder, and the API server calls it there.
        WEBHOOK_HOST: '127.0.0.1',
        WEBHOOK_PORT: String(webhook),
        WEBHOOK_CERT_DIR: dir,
      },
    },
  );
  try {
    await until(
      'the OpenKruise manager',
      async () => {
        if (!manager.running) return true;
        return (await fetch(`http://127.0.0.1:${health}/readyz`)).ok ? true : undefined;
      },
      { limitMs: READY_MS, everyMs: 100 },
    );
    if (!manager.running) throw new Error(`the OpenKruise manager ended; it said last:\n${manager.tail.slice(-3_000)}`);
    await cluster.client.watch<V1MutatingWebhookConfiguration, true>(
      '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations',
      ({ object }) =>
        object.webhooks?.some(({ clientConfig }) => clientConfig.url?.endsWith(`:${webhook}/mutate-pod`)) || undefined,
      { limitMs: READY_MS },
    );
  } catch (error) {
    manager.kill();
    throw error;
  }
  return manager;
}

/**
 * Applies a SidecarSet, and waits until OpenKruise has seen it: its webhook reads a copy, and a Pod that is made before would get no
 * sidecar.
 */
export async function applySet(cluster: Cluster, set: KubernetesObject): Promise<void> {
  const { metadata } = await cluster.client.apply(set);
  await cluster.client.watch<KubernetesObject & { status?: { observedGeneration?: number } }, true>(
    '/apis/apps.kruise.io/v1alpha1/sidecarsets',
    ({ object }) => (object.status?.observedGeneration ?? 0) >= (metadata?.generation ?? 0) || undefined,
    { fieldSelector: `metadata.name=${metadata?.name}` },
  );
}

async function applyManifests(cluster: Cluster): Promise<void> {
  const kustomize = ['kustomize', path.join(kruiseConfigDir(), 'default')];
  const { stdout } = await promisify(execFile)(toolPath('kubectl'), kustomize, { maxBuffer: 1 << 26 });
  const documents = stdout.split(/^---$/m);
  const here = documents.filter((text) => !NOT_HERE.includes(/^kind: (\S+)$/m.exec(text)?.[1] ?? ''));
  const file = path.join(cluster.dir, 'kruise.yaml');
  writeFileSync(file, here.join('---'));
  await cluster.kubectl('apply', '--server-side', '-f', file);
  await cluster.kubectl('wait', '--for=condition=Established', '--timeout=60s', 'crd', '--all');
}
