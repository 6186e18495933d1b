import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { KubernetesObject, V1ConfigMap, V1CustomResourceDefinition, V1Deployment } from '@kubernetes/client-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { bindPods } from '../harness/deploy/binder.ts';
import { buildImages, parseDockerfile, ROOT } from '../harness/deploy/dockerfile.ts';
import { imageFromDockerfile } from '../harness/deploy/layers.ts';
import { CHART, helm, SYSTEM, type Values } from '../harness/deploy/render.ts';
import { Services } from '../harness/deploy/services.ts';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { Node } from '../harness/k8s/node.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';

const missing =
  (await missingTools(['etcd', 'kube-apiserver', 'kube-controller-manager', 'kubectl', 'kubelet', 'helm'])) ??
  missingNodePackages();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

const IMAGE = 'sluice.test/controller';
const VALUES: Values = { replicas: 2, image: { repository: IMAGE, pullPolicy: 'Never' } };
const RELEASE = ['--namespace', SYSTEM, '--wait', '--timeout', '120s'];

let block: Block;
let cluster: Cluster;
let node: Node;
let services: Services;
let binder: ReturnType<typeof bindPods>;
/** The chart as an older release of it would be: its CRD has a column less. */
let older: string;

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  const built = await buildImages(block.dir);
  const file = parseDockerfile(readFileSync(path.join(ROOT, 'deploy/images/controller.Dockerfile'), 'utf8'));
  cluster = await Cluster.start(block);
  node = await Node.start(cluster, { images: [imageFromDockerfile(file, `${IMAGE}:0.1.0`, built)] });
  services = await Services.start(cluster, node);
  binder = bindPods(cluster, [node.name]);
  // Nothing that this level forbids may be in the chart: the API server refuses such Pods.
  await cluster.namespace(SYSTEM, { 'pod-security.kubernetes.io/enforce': 'restricted' });
  older = olderChart(path.join(block.dir, 'older'));
});

afterAll(async () => {
  binder?.stop();
  await services?.stop();
  await node?.stop();
  await cluster?.stop();
  await block?.release();
});

function olderChart(to: string): string {
  cpSync(CHART, to, { recursive: true });
  const chart = path.join(to, 'Chart.yaml');
  writeFileSync(chart, readFileSync(chart, 'utf8').replace('\nversion: 0.1.0', '\nversion: 0.0.9'));
  const file = path.join(to, 'files/crds/hotupgrades.yaml');
  const crd = parse(readFileSync(file, 'utf8')) as V1CustomResourceDefinition;
  crd.spec.versions[0]?.additionalPrinterColumns?.shift();
  writeFileSync(file, stringify(crd));
  return to;
}

async function release(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await helm(args, { KUBECONFIG: cluster.kubeconfig() }, values);
  if (code !== 0) throw new Error(`${stderr}\n${await state()}`);
  return stdout;
}
let values: Values | undefined;

/** What a test that fails wants to know. */
async function state(): Promise<string> {
  const pods = await cluster.kubectl('-n', SYSTEM, 'get', 'events,pods', '-o', 'wide');
  const logs = await cluster.kubectl('-n', SYSTEM, 'logs', 'deployment/sluice-controller').catch(String);
  return `${pods}\n${logs}\n${binder.errors.join('\n')}`;
}

type HotUpgrade = KubernetesObject & { readonly status?: { observedGeneration?: number; fence?: number } };

const meta = (name: string) => ({ name, namespace: SYSTEM });
const deployment = () =>
  cluster.client.get<V1Deployment>({ apiVersion: 'apps/v1', kind: 'Deployment', metadata: meta('sluice-controller') });
const columns = async () => {
  const metadata = { name: 'hotupgrades.sluice.dev' };
  const object = { apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition', metadata };
  const crd = await cluster.client.get<V1CustomResourceDefinition>(object);
  return crd.spec.versions[0]?.additionalPrinterColumns?.map(({ name }) => name);
};
const level = async () => {
  const metadata = meta('sluice-controller');
  const { data } = await cluster.client.get<V1ConfigMap>({ apiVersion: 'v1', kind: 'ConfigMap', metadata });
  return (parse(data?.['config.yaml'] ?? '') as { logLevel: string }).logLevel;
};

it('helm install: the controller is ready, as a user that is not root, with a root that nobody can write', async () => {
  values = VALUES;
  const notes = await release('install', 'sluice', older, ...RELEASE);
  expect(notes).toContain(`SLUICE_CONTROLLER=http://sluice-controller.${SYSTEM}:18080`);
  const { items } = await cluster.client.core.listNamespacedPod({ namespace: SYSTEM });
  expect(items).toHaveLength(2);
  for (const { status } of items) {
    expect(await (await fetch(`http://${status?.podIP}:18080/readyz`)).json()).toEqual({ status: 'ok' });
    expect(await (await fetch(`http://${status?.podIP}:18080/metrics`)).text()).toContain('sluice_build_info');
  }
  const version = await cluster.kubectl(
    '-n',
    SYSTEM,
    'exec',
    'deployment/sluice-controller',
    '--',
    'sluice',
    'version',
  );
  expect(version).toMatch(/^sluice 0\.1\.0 /);
  const script = `const fs = require('node:fs'); const out = [process.getuid(), process.getgid()];
    try { fs.writeFileSync('/x', ''); out.push('written'); } catch (error) { out.push(error.code); }
    fs.writeFileSync('/tmp/x', ''); out.push(/^CapEff:\\s*(.*)$/m.exec(fs.readFileSync('/proc/self/status', 'utf8'))[1]);
    console.log(JSON.stringify(out));`;
  const exec = ['-n', SYSTEM, 'exec', 'deployment/sluice-controller', '--', 'node', '-e', script];
  expect(JSON.parse(await cluster.kubectl(...exec))).toEqual([65_532, 65_532, 'EROFS', '0000000000000000']);
});

it('the controller leads, sees HotUpgrades and writes their status, with the rights of the chart and no others', async () => {
  const file = path.join(ROOT, 'deploy/sample/in-place/hot-upgrade.yaml');
  await cluster.kubectl('apply', '--namespace', 'default', '-f', file);
  const seen = await cluster.client.watch<HotUpgrade, HotUpgrade>(
    '/apis/sluice.dev/v1alpha1/namespaces/default/hotupgrades',
    ({ object }) => (object.status?.observedGeneration === object.metadata?.generation ? object : undefined),
    { limitMs: 60_000 },
  );
  expect(seen.status?.fence).toBeGreaterThan(0);
  const holder = ['-n', SYSTEM, 'get', 'lease', 'sluice-controller', '-o', 'jsonpath={.spec.holderIdentity}'];
  expect(await cluster.kubectl(...holder)).toMatch(/^sluice-controller-/);
  const { items } = await cluster.client.core.listNamespacedPod({ namespace: SYSTEM });
  const leases = (await cluster.kubectl('-n', SYSTEM, 'get', 'leases', '-o', 'name')).split('\n');
  for (const { metadata } of items) expect(leases).toContainEqual(expect.stringContaining(`${metadata?.name}`));
  const logs = items.map(({ metadata }) => cluster.kubectl('-n', SYSTEM, 'logs', metadata?.name ?? ''));
  const said = (await Promise.all(logs)).join('');
  expect(said).not.toMatch(/[Ff]orbidden/);
  expect(said.split('\n').filter((line) => /"level":[56]0/.test(line))).toEqual([]);
});

it('helm upgrade: new Pods for a new config, and the CRDs of the new release', async () => {
  expect(await columns()).not.toContain('Target');
  const before = (await deployment()).metadata?.generation ?? 0;
  values = { ...VALUES, controller: { logLevel: 'debug' } };
  await release('upgrade', 'sluice', CHART, ...RELEASE);
  expect(await columns()).toContain('Target');
  expect(await level()).toBe('debug');
  const { metadata, status } = await deployment();
  expect(metadata?.generation).toBeGreaterThan(before);
  expect(status).toMatchObject({ observedGeneration: metadata?.generation, readyReplicas: 2, updatedReplicas: 2 });
});

it('helm upgrade: values that the schema refuses change nothing', async () => {
  values = { ...VALUES, replica: 2 };
  const before = await deployment();
  await expect(release('upgrade', 'sluice', CHART, ...RELEASE)).rejects.toThrow(
    "additional properties 'replica' not allowed",
  );
  // Not the resourceVersion: that is also new with each status that the upgrade before still brings.
  expect((await deployment()).metadata?.generation).toBe(before.metadata?.generation);
});

it('helm rollback: the release from before', async () => {
  values = undefined;
  await release('rollback', 'sluice', '1', ...RELEASE);
  expect(await level()).toBe('info');
  expect(await columns()).not.toContain('Target');
  expect((await deployment()).status?.readyReplicas).toBe(2);
});

it('helm uninstall: the CRDs stay, and with them the HotUpgrades', async () => {
  await release('uninstall', 'sluice', '--namespace', SYSTEM, '--wait', '--timeout', '120s');
  expect(await cluster.kubectl('get', 'hotupgrades', '-n', 'default', '-o', 'name')).toContain(
    'hotupgrade.sluice.dev/',
  );
  expect(
    await cluster.kubectl('-n', SYSTEM, 'get', 'deployments,services,configmaps,networkpolicies', '-o', 'name'),
  ).not.toContain('sluice');
  values = VALUES;
  // The same release takes its CRDs up again.
  await release('install', 'sluice', CHART, ...RELEASE);
  expect(await columns()).toContain('Target');
});
