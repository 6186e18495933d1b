import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { chart, DEPLOY, kustomize, type Manifest, nameOf } from '../harness/deploy/render.ts';
import { missingTools } from '../harness/k8s/tools.ts';

const missing = await missingTools(['helm', 'kubectl']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

/** What is a tool's own: its labels, its way to tell of a changed config, the name of a generated ConfigMap. */
function plain(object: Manifest): Manifest {
  const text = JSON.stringify(object, (key, value) => {
    if (/^(helm\.sh\/|checksum\/|app\.kubernetes\.io\/(instance|managed-by|version)$)/.test(key)) return undefined;
    return typeof value === 'string' ? value.replace(/^(sluice-controller)-[a-z0-9]{10}$/, '$1') : value;
  });
  const one = JSON.parse(text, (_, value) =>
    value !== null && typeof value === 'object' && !Array.isArray(value) && Object.keys(value).length === 0
      ? undefined
      : value,
  ) as Manifest;
  const config = one.data?.['config.yaml'] as string | undefined;
  return config === undefined ? one : { ...one, data: parse(config) };
}

const byName = (objects: readonly Manifest[]) =>
  Object.fromEntries(objects.map((one) => [nameOf(plain(one)), plain(one)]));

it('helm and kustomize make the same objects', async () => {
  const [fromHelm, fromBase] = [byName(await chart()), byName(await kustomize('kustomize/base'))];
  expect(Object.keys(fromBase).sort()).toEqual(Object.keys(fromHelm).sort());
  expect(fromBase).toEqual(fromHelm);
});

it('and also with injection', async () => {
  const fromHelm = byName(await chart({ replicas: 3, injection: { enabled: true } }));
  const fromOverlay = byName(await kustomize('kustomize/overlays/injection'));
  // What the overlay `ha` adds: a namespace, and replicas that must be on nodes of their own.
  const { 'Namespace sluice-system': _, ...both } = fromOverlay;
  for (const one of [both, fromHelm]) {
    (one['Deployment sluice-controller'] as Manifest).spec.template.spec.topologySpreadConstraints = [];
    for (const manifest of Object.values(one)) delete manifest.metadata?.labels;
  }
  expect(both).toEqual(fromHelm);
});

it.each([
  ['single', 1, 'ScheduleAnyway'],
  ['ha', 3, 'DoNotSchedule'],
])('the overlay %s', async (name, replicas, whenUnsatisfiable) => {
  const objects = await kustomize(`kustomize/overlays/${name}`);
  const deployment = objects.find(({ kind }) => kind === 'Deployment');
  expect(deployment?.spec.replicas).toBe(replicas);
  expect(deployment?.spec.template.spec.topologySpreadConstraints[0].whenUnsatisfiable).toBe(whenUnsatisfiable);
  // Its ConfigMap's hash is in the name: a change of the file is a rollout.
  const config = objects.find(({ kind }) => kind === 'ConfigMap')?.metadata?.name;
  expect(config).toMatch(/^sluice-controller-[a-z0-9]{10}$/);
  expect(deployment?.spec.template.spec.volumes[0].configMap.name).toBe(config);
  const namespaces = new Set(objects.map(({ metadata }) => metadata?.namespace).filter((one) => one !== undefined));
  expect([...namespaces]).toEqual(['sluice-system']);
});

it('the component for Prometheus Operator makes what the chart makes', async () => {
  const values = { serviceMonitor: { enabled: true } };
  const wanted = (await chart(values)).find(({ kind }) => kind === 'ServiceMonitor') as Manifest;
  const file = path.join(DEPLOY, 'kustomize/components/monitoring/service-monitor.yaml');
  expect(plain(parse(readFileSync(file, 'utf8')))).toEqual(plain(wanted));
});
