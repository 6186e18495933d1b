import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { resolveConfig } from '@sluice/xds-server/config';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { controllerFields } from '../../cli/src/commands/controller.ts';
import { COPIED, NOT_COPIED } from '../../deploy/scripts/chart.ts';
import { CHART_SCHEMA, chartDefinitions } from '../../xds-server/scripts/chart-schema.ts';
import { CHART, chart, DEPLOY, helm, type Manifest, manifests, nameOf, type Values } from '../harness/deploy/render.ts';
import { missingTools } from '../harness/k8s/tools.ts';

const missing = await missingTools(['helm']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

const find = (objects: readonly Manifest[], name: string): Manifest => {
  const one = objects.find((object) => nameOf(object) === name);
  if (one === undefined) throw new Error(`expected ${name}, found ${objects.map(nameOf).join(', ')}`);
  return one;
};

/** Values of every kind: the chart's own, and all that it leaves out by default. */
const FULL: Values = {
  replicas: 3,
  image: { repository: 'registry.test:5000/mesh/controller', digest: `sha256:${'0'.repeat(64)}` },
  imagePullSecrets: [{ name: 'pull' }],
  controller: {
    logLevel: 'debug',
    bindHost: '[::]',
    policy: { maxDrainMs: 0, rules: [{ name: 'batch', match: { listeners: ['batch-*'] }, protectMs: 60_000 }] },
    watchNamespace: 'shop',
    metrics: { prometheus: { url: 'http://prometheus.monitoring:9090', everySeconds: 30 } },
    resourcesConfigMap: 'mesh-resources',
    token: { secretName: 'sluice-token', key: 'secret' },
  },
  injection: {
    enabled: true,
    sidecar: { clusterId: { configMap: 'mesh-cluster' }, interception: { excludeOutboundRanges: ['10.96.0.1/32'] } },
  },
  serviceAccount: { annotations: { 'iam.test/role': 'sluice' } },
  service: { annotations: { team: 'mesh' }, apiPort: 80, xdsPort: 81 },
  podDisruptionBudget: { maxUnavailable: '34%' },
  networkPolicy: {
    agents: [{ namespaceSelector: { matchLabels: { mesh: 'yes' } } }],
    egress: [{ ports: [{ port: 443 }, { port: 6443 }] }],
  },
  topologySpread: { whenUnsatisfiable: 'DoNotSchedule', topologyKeys: ['kubernetes.io/hostname'] },
  priorityClassName: 'system-cluster-critical',
  nodeSelector: { pool: 'system' },
  tolerations: [{ key: 'system', operator: 'Exists' }],
  affinity: { nodeAffinity: {} },
  podLabels: { team: 'mesh' },
  podAnnotations: { note: 'x' },
  serviceMonitor: { enabled: true, labels: { release: 'prometheus' } },
};

it.each([
  ['the default', {}],
  ['all', FULL],
])('helm lint --strict finds nothing in the chart with %s values', async (_, values) => {
  const { code, stdout, stderr } = await helm(['lint', '--strict', CHART], {}, values);
  expect(stdout + stderr).not.toMatch(/\[(WARNING|ERROR)\]/);
  expect(code).toBe(0);
});

it('every value finds its way into an object', async () => {
  const objects = await chart(FULL);
  const pod = find(objects, 'Deployment sluice-controller').spec.template;
  expect(pod.spec.containers[0].image).toBe(`registry.test:5000/mesh/controller@sha256:${'0'.repeat(64)}`);
  expect(pod.metadata.labels.team).toBe('mesh');
  expect(pod.spec.topologySpreadConstraints).toHaveLength(1);
  expect(pod.spec.volumes.map(({ name }: { name: string }) => name)).toEqual(['config', 'tmp', 'token', 'resources']);
  expect(find(objects, 'NetworkPolicy sluice-controller').spec.policyTypes).toEqual(['Ingress', 'Egress']);
  expect(find(objects, 'ServiceMonitor sluice-controller').metadata?.labels?.release).toBe('prometheus');
  const none = await chart({
    crds: { install: false },
    rbac: { create: false },
    serviceAccount: { create: false },
    podDisruptionBudget: { enabled: false },
    networkPolicy: { enabled: false },
  });
  expect(none.map(nameOf).sort()).toEqual(
    ['ConfigMap', 'Deployment', 'Service'].map((kind) => `${kind} sluice-controller`),
  );
});

it.each([
  ['default', {}],
  ['full', FULL],
])('the controller takes its config: %s values', async (_, values) => {
  const config = find(await chart(values), 'ConfigMap sluice-controller').data['config.yaml'] as string;
  const { tokenFile, ...options } = parse(config) as Record<string, string>;
  expect(tokenFile).toBe(values === FULL ? '/etc/sluice/token/secret' : undefined);
  const { api, state, kubernetes, prometheus } = resolveConfig(await controllerFields(options as never));
  expect([api.port, state]).toEqual([18_080, undefined]);
  if (values !== FULL) return expect(kubernetes).toEqual({ lease: 'sluice-controller' });
  expect([prometheus?.url, kubernetes?.watch]).toEqual(['http://prometheus.monitoring:9090', 'shop']);
  expect(kubernetes?.injection?.sidecar).toMatchObject({
    image: 'mesh/sluice-sidecar:1.40.0',
    controllers: ['http://sluice-controller.sluice-system:80'],
    xds: 'sluice-controller.sluice-system:81',
    clusterId: { configMap: 'mesh-cluster', key: 'clusterId' },
  });
});

it('a change of the config alone makes new Pods', async () => {
  const sum = async (values: Values) =>
    find(await chart(values), 'Deployment sluice-controller').spec.template.metadata.annotations['checksum/config'];
  expect(await sum({ controller: { logLevel: 'debug' } })).not.toBe(await sum({}));
  expect(await sum({ replicas: 5 })).toBe(await sum({}));
});

const BAD: readonly [string, Values, string][] = [
  ['a name that does not exist', { replica: 2 }, "at '': additional properties 'replica' not allowed"],
  [
    'a deep name that does not exist',
    { controller: { token: { secret: 'x' } } },
    "at '/controller/token': additional properties 'secret' not allowed",
  ],
  ['no replica', { replicas: 0 }, "at '/replicas': minimum: got 0, want 1"],
  ['replicas as a text', { replicas: '2' }, "at '/replicas': got string, want integer"],
  ['a port out of range', { service: { apiPort: 70_000 } }, "at '/service/apiPort': maximum: got 70,000, want 65,535"],
  ['half a digest', { image: { digest: 'sha256:12' } }, "at '/image/digest': 'sha256:12' does not match pattern"],
  ['an image without a name', { image: { repository: '' } }, "at '/image/repository': '' does not match pattern"],
  [
    'an unknown level',
    { controller: { logLevel: 'verbose' } },
    "at '/controller/logLevel': value must be one of 'trace', 'debug'",
  ],
  [
    'a name with capitals',
    { controller: { resourcesConfigMap: 'Mesh' } },
    "at '/controller/resourcesConfigMap': 'Mesh' does not match pattern",
  ],
  [
    'nobody let in, which would be everybody',
    { networkPolicy: { agents: [] } },
    "at '/networkPolicy/agents': minItems: got 0, want 1",
  ],
  ['a default taken away', { networkPolicy: { agents: null } }, "at '/networkPolicy': missing property 'agents'"],
  [
    'a budget of nothing',
    { podDisruptionBudget: { maxUnavailable: 0 } },
    "at '/podDisruptionBudget/maxUnavailable': minimum: got 0, want 1",
  ],
  [
    'a misspelt quantity',
    { resources: { limits: { memory: '512 MB' } } },
    "at '/resources/limits/memory': '512 MB' does not match pattern",
  ],
  [
    'a policy that the controller would not take',
    { controller: { policy: { maxDrainMs: 'never' } } },
    "at '/controller/policy/maxDrainMs': got string, want integer",
  ],
  [
    'a policy with a misspelt field',
    { controller: { policy: { maxDrain: 1 } } },
    "at '/controller/policy': additional properties 'maxDrain' not allowed",
  ],
  [
    'a sidecar with a misspelt field',
    { injection: { sidecar: { empty: 'x' } } },
    "at '/injection/sidecar': additional properties 'empty' not allowed",
  ],
  [
    'a port of the sidecar out of range',
    { injection: { sidecar: { interception: { excludeInboundPorts: [0] } } } },
    "at '/injection/sidecar/interception/excludeInboundPorts/0': minimum: got 0, want 1",
  ],
  [
    'a grace too short to close',
    { terminationGracePeriodSeconds: 1 },
    "at '/terminationGracePeriodSeconds': minimum: got 1, want 5",
  ],
];

it.each(BAD)('refused: %s', async (_, values, message) => {
  const { code, stderr } = await helm(['template', 'sluice', CHART], {}, values);
  expect(stderr).toContain(message);
  expect(code).not.toBe(0);
});

it('the rights are those of deploy/rbac, in the namespace of the release', async () => {
  const stored = readdirSync(path.join(DEPLOY, 'rbac'))
    .filter((name) => name !== 'kustomization.yaml')
    .flatMap((name) => manifests(readFileSync(path.join(DEPLOY, 'rbac', name), 'utf8')));
  const objects = await chart({}, '--namespace', 'elsewhere');
  for (const want of stored) {
    const found = find(objects, nameOf(want));
    expect([nameOf(found), found.rules, found.roleRef]).toEqual([nameOf(want), want.rules, want.roleRef]);
    if (want.metadata?.namespace !== undefined) expect(found.metadata?.namespace).toBe('elsewhere');
    for (const subject of found.subjects ?? []) expect(subject.namespace).toBe('elsewhere');
  }
  const kinds = /^(Cluster)?Role(Binding)?$|^ServiceAccount$/;
  expect(
    objects
      .filter(({ kind = '' }) => kinds.test(kind))
      .map(nameOf)
      .sort(),
  ).toEqual(stored.map(nameOf).sort());
});

test.each(Object.entries(COPIED))('the chart has %s of deploy/: run node deploy/scripts/chart.ts', (name, folder) => {
  const of = (dir: string) =>
    Object.fromEntries(
      readdirSync(dir)
        .filter((name) => !NOT_COPIED.includes(name))
        .map((name) => [name, readFileSync(path.join(dir, name), 'utf8')]),
    );
  expect(of(path.join(CHART, 'files', name))).toEqual(of(path.join(DEPLOY, folder)));
});

test('the chart knows what the controller takes: run xds-server/scripts/chart-schema.ts', () => {
  const { definitions } = JSON.parse(readFileSync(CHART_SCHEMA, 'utf8')) as { definitions: object };
  expect(definitions).toMatchObject(chartDefinitions());
});

it('CRDs are upgraded with the chart, and stay when it is removed', async () => {
  const crds = (await chart()).filter(({ kind }) => kind === 'CustomResourceDefinition');
  expect(crds.map(({ metadata }) => metadata?.annotations)).toEqual(
    crds.map(() => ({ 'helm.sh/resource-policy': 'keep' })),
  );
  expect(crds.length).toBeGreaterThanOrEqual(2);
});
