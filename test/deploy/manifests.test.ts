import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { sampleSidecarSet } from '../../xds-server/scripts/sidecarset.ts';
import { chart, DEPLOY, kustomize, type Manifest, nameOf, SYSTEM, type Values } from '../harness/deploy/render.ts';
import { Cluster } from '../harness/k8s/cluster.ts';
import { startKruise } from '../harness/k8s/kruise.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import type { Child } from '../harness/process.ts';

const missing = await missingTools();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

let block: Block;
let cluster: Cluster;
let kruise: Child;

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  kruise = await startKruise(cluster);
  for (const name of [SYSTEM, 'shop']) await cluster.namespace(name);
  for (const crd of await kustomize('crds')) await cluster.client.apply(crd);
  await cluster.kubectl('wait', '--for=condition=Established', '--timeout=60s', 'crd', '--all');
});

afterAll(async () => {
  await kruise?.stop();
  await cluster?.stop();
  await block?.release();
});

/** Server-side dry run with strict validation: admission, webhooks and defaults too; a field that does not exist is an error. */
async function dryRun(objects: readonly Manifest[]): Promise<Manifest[]> {
  const text = objects.map((object) => stringify(object, { aliasDuplicateObjects: false })).join('---\n');
  const file = path.join(cluster.dir, 'dry-run.yaml');
  writeFileSync(file, text);
  const args = [
    'apply',
    '--server-side',
    '--dry-run=server',
    '--validate=strict',
    '--field-manager=test',
    '-o',
    'json',
  ];
  const told = JSON.parse(await cluster.kubectl(...args, '-f', file)) as Manifest;
  return told.kind === 'List' ? (told.items as Manifest[]) : [told];
}

/** What the API server has no kind for here: that of Prometheus Operator. */
const known = (objects: readonly Manifest[]) => objects.filter(({ kind }) => kind !== 'ServiceMonitor');

const CHARTS: readonly [string, Values][] = [
  ['the default', {}],
  ['one replica', { replicas: 1, podDisruptionBudget: { maxUnavailable: '50%' } }],
  [
    'all',
    {
      image: { digest: `sha256:${'0'.repeat(64)}` },
      imagePullSecrets: [{ name: 'pull' }],
      injection: { enabled: true },
      controller: { policy: { maxDrainMs: 0 }, resourcesConfigMap: 'mesh', token: { secretName: 'token' } },
      service: { annotations: { team: 'mesh' } },
      networkPolicy: { egress: [{ ports: [{ port: 443 }] }] },
      nodeSelector: { pool: 'system' },
      tolerations: [{ key: 'system', operator: 'Exists' }],
      podLabels: { team: 'mesh' },
    },
  ],
];

it.each(CHARTS)('the API server takes all objects of the chart: %s values', async (_, values) => {
  const objects = known(await chart(values));
  expect((await dryRun(objects)).map(nameOf).sort()).toEqual(objects.map(nameOf).sort());
});

it.each(['single', 'ha', 'injection'])('the API server takes all objects of the overlay %s', async (name) => {
  const objects = await kustomize(`kustomize/overlays/${name}`);
  expect((await dryRun(objects)).map(nameOf).sort()).toEqual(objects.map(nameOf).sort());
});

it('a misspelt field would be found', async () => {
  const [service] = (await chart()).filter(({ kind }) => kind === 'Service') as [Manifest];
  const wrong = { ...service, spec: { ...service.spec, sessionAfinity: 'None' } };
  await expect(dryRun([wrong])).rejects.toThrow('.spec.sessionAfinity: field not declared in schema');
});

it.each(['in-place', 'kruise'])('the API server takes the sample %s', async (name) => {
  const objects = await kustomize(`sample/${name}`);
  expect((await dryRun(objects)).map(nameOf).sort()).toEqual(objects.map(nameOf).sort());
});

it("OpenKruise's webhook takes the SidecarSet, and refuses one that it could not carry out", async () => {
  const [set] = (await kustomize('sidecarset')) as [Manifest];
  const [taken] = (await dryRun([set])) as [Manifest];
  // Its defaults are there: the webhook has seen it.
  expect(taken.metadata?.annotations?.['kruise.io/sidecarset-hash']).toBeDefined();
  expect(taken.spec.containers[0].upgradeStrategy).toEqual({
    upgradeType: 'HotUpgrade',
    hotUpgradeEmptyImage: 'mesh/sluice-empty:0.1.0',
  });
  const wrong = structuredClone(set);
  wrong.spec.selector = {};
  await expect(dryRun([wrong])).rejects.toThrow(/admission webhook.*denied.*empty selector is not valid/);
});

test('deploy/sidecarset/sidecarset.yaml is made from injection.yaml: run xds-server/scripts/sidecarset.ts', () => {
  expect(readFileSync(path.join(DEPLOY, 'sidecarset/sidecarset.yaml'), 'utf8')).toBe(sampleSidecarSet());
});

it('an overlay changes both images of the SidecarSet', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'sluice-overlay-'));
  try {
    const images = ['sidecar', 'empty', 'redirect'].map((name) => ({
      name: `mesh/sluice-${name}`,
      newName: `registry.test/${name}`,
      newTag: '2',
    }));
    const overlay = {
      resources: [path.relative(dir, path.join(DEPLOY, 'sidecarset'))],
      configurations: ['images.yaml'],
      images,
    };
    writeFileSync(path.join(dir, 'kustomization.yaml'), JSON.stringify(overlay));
    writeFileSync(path.join(dir, 'images.yaml'), readFileSync(path.join(DEPLOY, 'sidecarset/images.yaml')));
    const [set] = (await kustomize(dir)) as [Manifest];
    expect(set.spec.initContainers[0].image).toBe('registry.test/redirect:2');
    expect(set.spec.containers[0].image).toBe('registry.test/sidecar:2');
    expect(set.spec.containers[0].upgradeStrategy.hotUpgradeEmptyImage).toBe('registry.test/empty:2');
  } finally {
    rmSync(dir, { recursive: true });
  }
});
