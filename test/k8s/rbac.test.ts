import { readdirSync, readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { KubeConfig, type KubernetesObject, type V1Pod, type V1SelfSubjectRulesReview } from '@kubernetes/client-node';
import { DEFAULT_ANALYSIS, DEFAULT_POLICY, DEFAULT_STRATEGY } from '@sluice/contract';
import { isReason, type Kind, KubeClient, LEASES, PODS, pathOf } from '@sluice/xds-server/kube/client';
import { API_VERSION } from '@sluice/xds-server/kube/crds';
import { takePart } from '@sluice/xds-server/kube/election';
import { tell } from '@sluice/xds-server/kube/events';
import { Informer } from '@sluice/xds-server/kube/informer';
import { newRollout } from '@sluice/xds-server/rollout/state';
import { sampleUpgrade } from '@sluice/xds-server/store/conformance';
import { MESH_PROXIES, PROXY_ROLLOUTS, PROXY_UPGRADES, RECORD_CHUNKS } from '@sluice/xds-server/store/resource-api';
import { ResourceStore } from '@sluice/xds-server/store/resource-store';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';

const missing = await missingTools(['etcd', 'kube-apiserver']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

const SYSTEM = 'sluice-system';
const UPGRADES: Kind = { apiVersion: API_VERSION, kind: 'HotUpgrade', plural: 'hotupgrades' };
const POLICIES: Kind = { apiVersion: API_VERSION, kind: 'DrainPolicy', plural: 'drainpolicies' };
const CONFIG_MAPS: Kind = { apiVersion: 'v1', kind: 'ConfigMap', plural: 'configmaps' };

let block: Block;
let cluster: Cluster;
/** With the rights of the ServiceAccount of deploy/rbac, and no others. */
let client: KubeClient;

function manifests(folder: string): KubernetesObject[] {
  const url = new URL(`../../deploy/${folder}/`, import.meta.url);
  const files = readdirSync(url).filter((name) => name !== 'kustomization.yaml');
  return files.flatMap((name) =>
    parseAllDocuments(readFileSync(new URL(name, url), 'utf8')).map((one) => one.toJS() as KubernetesObject),
  );
}

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block, { controllerManager: false });
  await cluster.namespace(SYSTEM);
  for (const object of [...manifests('crds'), ...manifests('rbac')]) await cluster.client.apply(object);
  const established = (name: string) =>
    cluster.client.watch<KubernetesObject & { status?: { conditions?: { type: string; status: string }[] } }, true>(
      '/apis/apiextensions.k8s.io/v1/customresourcedefinitions',
      ({ object }) =>
        (object.metadata?.name === name &&
          object.status?.conditions?.some(({ type, status }) => type === 'Established' && status === 'True')) ||
        undefined,
    );
  for (const { metadata } of manifests('crds')) await established(metadata?.name ?? '');
  const config = new KubeConfig();
  config.loadFromFile(await cluster.serviceAccountKubeconfig(SYSTEM, 'sluice-controller'));
  client = new KubeClient(config);
});

afterAll(async () => {
  await cluster?.stop();
  await block?.release();
});

const place = (name: string) => ({ namespace: 'default', name });
const upgrade = {
  apiVersion: API_VERSION,
  kind: 'HotUpgrade',
  metadata: place('all'),
  spec: {
    selector: { matchLabels: { app: 'shop' } },
    container: 'proxy',
    target: { image: 'mesh/proxy:2' },
    emptyImage: 'mesh/empty:1',
  },
} as KubernetesObject;
const policy = {
  apiVersion: API_VERSION,
  kind: 'DrainPolicy',
  metadata: place('gentle'),
  spec: {},
} as KubernetesObject;
const pod: V1Pod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: place('shop'),
  spec: { nodeName: 'nowhere', containers: [{ name: 'proxy-1', image: 'mesh/proxy:1' }] },
};

it('the controller has the rights for all its calls', async () => {
  const stored = await cluster.client.apply(upgrade);
  await cluster.client.apply(policy);
  await cluster.client.apply(pod);
  for (const kind of [UPGRADES, POLICIES, PODS]) {
    const end = new AbortController();
    const seen = new Promise<string | undefined>((resolve) => {
      const informer = new Informer(client, kind, { changed: (one) => resolve(one.metadata?.name), gone() {} });
      void informer.run(end.signal);
    });
    expect(await seen).toBeDefined();
    end.abort();
  }
  const status = {
    apiVersion: API_VERSION,
    kind: 'HotUpgrade',
    metadata: place('all'),
    status: { fence: 1, phase: 'Done' },
  };
  await client.apply(UPGRADES, status, { subresource: 'status' });
  await client.patch(UPGRADES, place('all'), 'merge', { metadata: { finalizers: ['sluice.dev/rollout'] } });
  await client.patch(POLICIES, { ...place('gentle'), subresource: 'status' }, 'merge', { status: { fence: 1 } });
  await client.patch(PODS, place('shop'), 'strategic', {
    spec: { containers: [{ name: 'proxy-1', image: 'mesh/proxy:2' }] },
  });

  const happening = { type: 'Normal', reason: 'Upgrading', action: 'Patch', note: 'mesh/proxy:2 starts' } as const;
  for (let i = 0; i < 2; i++) await tell(client, stored, happening, hostname());
  const events = await cluster.client.json<{ items: { regarding: { name: string }; series?: object }[] }>(
    'GET',
    '/apis/events.k8s.io/v1/namespaces/default/events',
  );
  expect(events.items.map(({ regarding, series }) => [regarding.name, series !== undefined])).toEqual([['all', true]]);

  const end = new AbortController();
  const options = { namespace: SYSTEM, name: 'sluice-controller', identity: 'one' };
  const lead = () => end.abort();
  await takePart(client, options, lead, end.signal);
  const lease = await client.get<KubernetesObject & { spec?: { holderIdentity?: string } }>(LEASES, {
    namespace: SYSTEM,
    name: 'sluice-controller',
  });
  expect(lease.spec?.holderIdentity ?? '').toBe('');
});

it('the state in its own namespace is its own to write, and the garbage collector’s to clean up', async () => {
  const store = new ResourceStore({ client, namespace: SYSTEM, agentsMs: 1, endedMs: 1 });
  const end = new AbortController();
  const told = new Set<string>();
  const all = new Promise<void>((resolve) => {
    store.watch(({ kind }) => told.add(kind).size === 3 && resolve(), end.signal);
  });
  await store.ping();
  await store.putAgent({ proxy: 'a', slot: '1', agentVersion: '1', versions: [], epochs: [], seenAt: 1 });
  await store.putAgent({ proxy: 'a', slot: '1', agentVersion: '2', versions: [], epochs: [], seenAt: 1 });
  expect(await store.agents()).toHaveLength(1);
  const { version } = await store.insertUpgrade(sampleUpgrade('u'), []);
  await store.updateUpgrade(sampleUpgrade('u', { phase: 'Done' }), version, []);
  await store.appendEnded('u', [], 1);
  await store.appendEnded('u', [], 2);
  expect(await store.ended('u')).toEqual({ items: [], dropped: 2 });
  const spec = { selector: { proxies: [], labels: {} }, target: { to: '1' }, policy: DEFAULT_POLICY };
  const rollout = newRollout('r', { ...spec, strategy: DEFAULT_STRATEGY, analysis: DEFAULT_ANALYSIS }, 1);
  const made = await store.insertRollout(rollout, []);
  await store.updateRollout({ ...rollout, phase: 'Done' }, made.version, []);
  await all;
  end.abort();
  await store.prune('edge', 0);
  await store.pruneRollouts(0);
  expect([...(await store.upgrades()), ...(await store.rollouts())]).toEqual([]);
  await store.close();
  const chunks = await client.list(RECORD_CHUNKS, { namespace: SYSTEM });
  const chunk = { namespace: SYSTEM, name: chunks.items[0]?.metadata?.name };
  expect(await refused(client.json('DELETE', pathOf(RECORD_CHUNKS, chunk)))).toBe(true);
  for (const kind of [MESH_PROXIES, PROXY_UPGRADES, PROXY_ROLLOUTS, RECORD_CHUNKS])
    expect(await refused(client.list(kind, { namespace: 'default' }))).toBe(true);
});

const refused = async (call: Promise<unknown>) =>
  isReason(
    await call.then(
      () => undefined,
      (error: unknown) => error,
    ),
    'Forbidden',
  );

it('and for no others', async () => {
  const rules = async (namespace: string) => {
    const review = await client.json<V1SelfSubjectRulesReview>(
      'POST',
      '/apis/authorization.k8s.io/v1/selfsubjectrulesreviews',
      { body: { spec: { namespace } } },
    );
    // What everybody may: ask about oneself.
    return (review.status?.resourceRules ?? [])
      .filter(({ apiGroups }) => !apiGroups?.some((group) => /^(authorization|authentication)\.k8s\.io$/.test(group)))
      .map(({ verbs, resources, resourceNames = [] }) =>
        [...(resources ?? []), ...resourceNames.map((name) => `(${name})`), ...verbs.sort()].join(' '),
      )
      .sort();
  };
  const everywhere = [
    'drainpolicies get list watch',
    'events create patch',
    'hotupgrades get list patch watch',
    'hotupgrades/status drainpolicies/status patch',
    'pods get list patch watch',
    'sidecarsets get list patch watch',
  ];
  expect(await rules('default')).toEqual(everywhere);
  const own = [
    'leases (sluice-controller) get update',
    'leases create',
    'leases delete list patch watch',
    'meshproxies proxyupgrades proxyrollouts create delete get list update watch',
    'recordchunks create get list update',
  ];
  expect(await rules(SYSTEM)).toEqual([...everywhere, ...own].sort());

  expect(await refused(client.apply(UPGRADES, { ...upgrade, metadata: place('another') }))).toBe(true);
  expect(await refused(client.patch(POLICIES, place('gentle'), 'merge', { spec: {} }))).toBe(true);
  expect(await refused(client.create(PODS, { ...pod, metadata: place('another') }))).toBe(true);
  expect(await refused(client.patch(PODS, { ...place('shop'), subresource: 'status' }, 'merge', {}))).toBe(true);
  expect(await refused(client.json('DELETE', '/api/v1/namespaces/default/pods/shop'))).toBe(true);
  expect(await refused(client.json('GET', '/api/v1/namespaces/default/secrets'))).toBe(true);
  expect(await refused(client.list(CONFIG_MAPS, {}))).toBe(true);
  expect(await refused(client.list(LEASES, {}))).toBe(true);
  expect(await refused(client.get(LEASES, { namespace: SYSTEM, name: 'another' }))).toBe(true);
  expect(await refused(client.get(LEASES, { namespace: 'default', name: 'sluice-controller' }))).toBe(true);
});
