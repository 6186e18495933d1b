import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { connect } from 'node:tls';
import {
  KubeConfig,
  type KubernetesObject,
  type V1ObjectMeta,
  type V1Pod,
  type V1Secret,
} from '@kubernetes/client-node';
import { startController } from '@sluice/xds-server';
import { SECRETS, WEBHOOKS } from '@sluice/xds-server/inject/certificate-keeper';
import { webhookConfiguration } from '@sluice/xds-server/inject/configuration';
import { type Injector, startInjection } from '@sluice/xds-server/inject/index';
import { injectionStatus } from '@sluice/xds-server/inject/template';
import { webhookSchema } from '@sluice/xds-server/inject/webhook-config';
import { issue, makeAuthority } from '@sluice/xds-server/inject/x509';
import { isReason, KubeClient, pathOf } from '@sluice/xds-server/kube/client';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import type { ApiError } from '../harness/k8s/client.ts';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { until } from '../harness/process.ts';

const missing = await missingTools(['etcd', 'kube-apiserver', 'kubectl']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

const SYSTEM = 'sluice-system';
const COMPONENT = new URL('../../deploy/kustomize/components/injection/', import.meta.url);
const CRDS = new URL('../../deploy/crds/', import.meta.url);
const RBAC = new URL('../../deploy/rbac/', import.meta.url);
const SECRET = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'sluice-webhook', namespace: SYSTEM } };
const SETTINGS = { sidecar: { image: 'mesh/proxy:1.40.0', emptyImage: 'mesh/empty:1' }, names: ['127.0.0.1'] };
const silent = { debug() {}, info() {}, warn() {}, error() {} };

let block: Block;
let cluster: Cluster;
let port: number;
let injector: Injector;
const end = new AbortController();

const manifests = (url: URL): KubernetesObject[] =>
  parseAllDocuments(readFileSync(url, 'utf8')).map((one) => one.toJS() as KubernetesObject);

/** With the rights that deploy/ gives the controller, and no others. */
async function controller(certificates: typeof CALM, at = port) {
  const kubeConfig = new KubeConfig();
  kubeConfig.loadFromFile(await cluster.serviceAccountKubeconfig(SYSTEM, 'sluice-controller'));
  const config = webhookSchema.parse({ ...SETTINGS, listen: `127.0.0.1:${at}`, certificates });
  return startInjection({ client: new KubeClient(kubeConfig), namespace: SYSTEM, config, log: silent, lingerMs: 0 });
}

const CALM = { authorityDays: 1, servingDays: 1, settleMs: 1_000, overlapMs: 1_000 };

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block, { controllerManager: false });
  port = await block.port();
  await cluster.namespace(SYSTEM);
  await cluster.namespace('shop', { 'sluice.dev/injection': 'enabled' });
  await cluster.namespace('plain');
  for (const name of ['service-account.yaml', 'cluster-role.yaml', 'role.yaml']) {
    for (const object of manifests(new URL(name, RBAC))) await cluster.client.apply(object);
  }
  for (const object of manifests(new URL('rbac.yaml', COMPONENT))) await cluster.client.apply(object);
  const url = `https://127.0.0.1:${port}/inject`;
  await cluster.client.apply(webhookConfiguration({ name: 'sluice-injection', namespace: SYSTEM, client: { url } }));
  injector = await controller(CALM);
  void injector.lead(end.signal);
  await injector.serving;
  await serves();
});

afterAll(async () => {
  end.abort();
  await injector?.close();
  await cluster?.stop();
  await block?.release();
});

function pod(namespace: string, name: string, more: V1ObjectMeta = {}): V1Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, ...more },
    spec: { containers: [{ name: 'app', image: 'shop:1' }] },
  };
}

function create(namespace: string, name: string, more: V1ObjectMeta = {}, dryRun = false): Promise<V1Pod> {
  const query = dryRun ? '?dryRun=All' : '';
  return cluster.client.json<V1Pod>('POST', `/api/v1/namespaces/${namespace}/pods${query}`, pod(namespace, name, more));
}

/** Until the API server has heard of the caBundle. */
const serves = () => until('the webhook', () => create('shop', 'first', {}, true), { limitMs: 20_000, everyMs: 100 });

const containers = ({ spec }: V1Pod) => spec?.containers.map(({ name }) => name);
const refusal = (call: Promise<unknown>) =>
  call.then(
    () => 'no refusal',
    (error: ApiError) => error.message,
  );

it('the manifest is the one that the code makes', () => {
  const options = { name: 'sluice-injection', namespace: SYSTEM, client: { service: 'sluice-webhook' } };
  expect(manifests(new URL('webhook.yaml', COMPONENT))).toEqual([webhookConfiguration(options)]);
});

it('Pods of a labelled namespace get the sidecar, elsewhere those that ask', async () => {
  const shop = await create('shop', 'shop');
  expect(containers(shop)).toEqual(['proxy-1', 'proxy-2', 'app']);
  expect(injectionStatus(shop)).toMatchObject({ container: 'proxy', image: 'mesh/proxy:1.40.0' });
  expect(containers(await create('shop', 'without', { labels: { 'sluice.dev/inject': 'false' } }))).toEqual(['app']);
  expect(containers(await create('plain', 'without'))).toEqual(['app']);
  const asks = await create('plain', 'asks', { labels: { 'sluice.dev/inject': 'true' } });
  expect(containers(asks)).toEqual(['proxy-1', 'proxy-2', 'app']);
});

it('what the API server stores of it is what it is given again: a copy of an injected Pod is not injected twice', async () => {
  const { metadata, spec } = await create('shop', 'model');
  const again = await cluster.client.json<V1Pod>('POST', '/api/v1/namespaces/shop/pods', {
    ...pod('shop', 'copy', { annotations: metadata?.annotations ?? {} }),
    spec,
  });
  expect(again.spec?.containers).toEqual(spec?.containers);
  expect(again.spec?.volumes).toEqual(spec?.volumes);
});

it('a Pod that another injector gave a proxy is refused by its name', async () => {
  const istio = { annotations: { 'sidecar.istio.io/status': '{}' } };
  const message = await refusal(create('shop', 'istio', istio));
  expect(message).toContain('admission webhook "namespace.inject.sluice.dev" denied the request');
  expect(message).toContain('annotation sidecar.istio.io/status');
  const meshed = pod('shop', 'linkerd');
  meshed.spec?.containers.push({ name: 'linkerd-proxy', image: 'linkerd:1' });
  expect(await refusal(cluster.client.json('POST', '/api/v1/namespaces/shop/pods', meshed))).toContain(
    'container linkerd-proxy',
  );
  const wrong = await refusal(create('shop', 'wrong', { annotations: { 'sluice.dev/concurrency': 'many' } }));
  expect(wrong).toContain('sluice.dev/concurrency: expected a whole number, found "many"');
});

it('kubectl: a dry run shows the sidecar and makes nothing; a Pod of the node’s network gets a warning', async () => {
  const file = `${block.dir}/dry.json`;
  writeFileSync(file, JSON.stringify(pod('shop', 'dry')));
  const shown = JSON.parse(await cluster.kubectl('create', '--dry-run=server', '-o', 'json', '-f', file)) as V1Pod;
  expect(containers(shown)).toEqual(['proxy-1', 'proxy-2', 'app']);
  await expect(cluster.client.get(pod('shop', 'dry'))).rejects.toThrow(/not found/);
  const host = pod('shop', 'host');
  host.spec = { ...host.spec, containers: host.spec?.containers ?? [], hostNetwork: true };
  writeFileSync(file, JSON.stringify(host));
  // kubectl says warnings on stderr; as errors they are its exit code too.
  const warned = await refusal(cluster.kubectl('create', '--warnings-as-errors', '-f', file));
  expect(warned).toContain('sluice: no sidecar: hostNetwork');
  expect(containers(await cluster.client.get<V1Pod>(host))).toEqual(['app']);
});

it('another webhook that gives a Pod a proxy after us: the Pod is refused, for we are asked again', async () => {
  // Its answer comes from our own server: what matters is the order, which is that of the names.
  const now = Date.now();
  const authority = await makeAuthority('other', { now, days: 1 });
  const identity = await issue(authority, ['127.0.0.1'], { now, days: 1 });
  const patch = [{ op: 'add', path: '/spec/containers/-', value: { name: 'istio-proxy', image: 'istio:1' } }];
  const other = https.createServer({ cert: identity.certificate, key: identity.key }, (request, response) => {
    let text = '';
    request.on('data', (part) => {
      text += part;
    });
    request.on('end', () => {
      const { uid, object } = (JSON.parse(text) as { request: { uid: string; object: V1Pod } }).request;
      const done = containers(object)?.includes('istio-proxy');
      const body = done ? {} : { patchType: 'JSONPatch', patch: Buffer.from(JSON.stringify(patch)).toString('base64') };
      const answer = {
        apiVersion: 'admission.k8s.io/v1',
        kind: 'AdmissionReview',
        response: { uid, allowed: true, ...body },
      };
      response.setHeader('content-type', 'application/json').end(JSON.stringify(answer));
    });
  });
  const otherPort = await block.port();
  await new Promise<void>((resolve) => other.listen(otherPort, '127.0.0.1', resolve));
  const configuration = {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'MutatingWebhookConfiguration',
    metadata: { name: 'z-other' },
    webhooks: [
      {
        name: 'other.example.com',
        admissionReviewVersions: ['v1'],
        clientConfig: {
          url: `https://127.0.0.1:${otherPort}/`,
          caBundle: Buffer.from(authority.certificate).toString('base64'),
        },
        rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
        objectSelector: { matchLabels: { meshed: 'twice' } },
        sideEffects: 'None',
      },
    ],
  };
  try {
    await cluster.client.apply(configuration);
    const both = { labels: { meshed: 'twice' } };
    // Until the API server has heard of the other one it lets the Pod through.
    const message = await until('a refusal', async () => {
      const said = await refusal(create('shop', 'both', both, true));
      return said === 'no refusal' ? undefined : said;
    });
    expect(message).toContain('another injector gave the Pod a proxy already: container istio-proxy');
  } finally {
    await cluster.client.delete(configuration);
    other.closeAllConnections();
    other.close();
  }
});

it('the rights reach to its own Secret and its own configuration, and no further', async () => {
  const config = new KubeConfig();
  config.loadFromFile(await cluster.serviceAccountKubeconfig(SYSTEM, 'sluice-controller'));
  const client = new KubeClient(config);
  const said = async (call: Promise<unknown>) =>
    call.then(
      () => 'allowed',
      (error) => (isReason(error, 'Forbidden') ? 'forbidden' : 'allowed'),
    );
  const name = 'sluice-webhook';
  const asked = {
    own: await said(client.get(SECRETS, { namespace: SYSTEM, name })),
    another: await said(client.get(SECRETS, { namespace: SYSTEM, name: 'another' })),
    all: await said(client.list(SECRETS, { namespace: SYSTEM })),
    elsewhere: await said(client.get(SECRETS, { namespace: 'shop', name })),
    configuration: await said(client.get(WEBHOOKS, { name: 'sluice-injection' })),
    'another configuration': await said(client.patch(WEBHOOKS, { name: 'another' }, 'merge', {})),
    'to delete it': await said(client.json('DELETE', pathOf(WEBHOOKS, { name: 'sluice-injection' }))),
  };
  expect(asked).toEqual({
    own: 'allowed',
    another: 'forbidden',
    all: 'forbidden',
    elsewhere: 'forbidden',
    configuration: 'allowed',
    'another configuration': 'forbidden',
    'to delete it': 'forbidden',
  });
});

/** A new connection, as an API server makes it that knows this caBundle. */
function handshake(caBundle: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, ca: Buffer.from(caBundle, 'base64').toString() }, () => {
      socket.end();
      resolve();
    });
    socket.once('error', reject);
  });
}

it('certificates and authorities that change all the time: no admission fails', async () => {
  await injector.close();
  // Made anew, for seconds instead of months: all of it is due again and again.
  await cluster.client.delete(SECRET);
  const second = 1 / 86_400;
  const authorityDays = 30 * second;
  injector = await controller({ authorityDays, servingDays: 9 * second, settleMs: 1_000, overlapMs: 2_000 });
  void injector.lead(end.signal);
  // A replica that does not lead serves with the same certificate.
  const otherPort = await block.port();
  const other = await controller(CALM, otherPort);
  await Promise.all([injector.serving, other.serving]);
  await serves();
  const configuration = webhookConfiguration({ name: 'sluice-injection', namespace: SYSTEM, client: { url: '' } });
  const served = new Set<string>();
  const authorities = new Set<string>();
  const failures: string[] = [];
  let answered = 0;
  const limit = performance.now() + 120_000;
  while ((served.size < 6 || authorities.size < 3) && performance.now() < limit) {
    try {
      const { webhooks = [] } = await cluster.client.get<typeof configuration>(configuration);
      const [bundle = '', second] = webhooks.map(({ clientConfig }) => clientConfig.caBundle);
      expect(second).toBe(bundle);
      await Promise.all([handshake(bundle, port), handshake(bundle, otherPort)]);
      expect(containers(await create('shop', `turn-${answered}`, {}, true))).toHaveLength(3);
    } catch (error) {
      failures.push((error as Error).message);
    }
    answered++;
    const { data = {} } = await cluster.client.get<V1Secret>(SECRET);
    served.add(data['tls.crt'] ?? '');
    authorities.add(data['ca.crt'] ?? '');
  }
  await other.close();
  console.log(`${answered} admissions, ${served.size} certificates of ${authorities.size} authorities`);
  expect(failures).toEqual([]);
  expect([served.size >= 6, authorities.size >= 3]).toEqual([true, true]);
});

it('the controller itself, which leads and injects', async () => {
  await injector.close();
  for (const name of readdirSync(CRDS).filter((name) => name !== 'kustomization.yaml')) {
    for (const object of manifests(new URL(name, CRDS))) await cluster.client.apply(object);
  }
  const kubernetes = {
    kubeconfig: await cluster.serviceAccountKubeconfig(SYSTEM, 'sluice-controller'),
    namespace: SYSTEM,
    replica: { id: 'one', host: '127.0.0.1' },
    injection: { ...SETTINGS, listen: `127.0.0.1:${port}` },
  };
  const addresses = { apiAddress: '127.0.0.1:0', xdsAddress: '127.0.0.1:0' };
  const sluice = await startController({ ...addresses, kubernetes }, { log: silent });
  try {
    const get = async (path: string) => (await fetch(`http://127.0.0.1:${sluice.apiPort}${path}`)).text();
    await until('a certificate', async () => ((await get('/readyz')).includes('certificate') ? undefined : true));
    await until('the webhook', () => create('shop', 'third', {}, true), { limitMs: 20_000, everyMs: 100 });
    expect(containers(await create('shop', 'third'))).toEqual(['proxy-1', 'proxy-2', 'app']);
    expect(await get('/metrics')).toMatch(/^sluice_injections_total\{result="injected"\} [1-9]/m);
  } finally {
    await sluice.close();
  }
  // Nobody answers any more: a Pod that is to have a sidecar is not made, another one is.
  expect(await refusal(create('shop', 'late'))).toContain('failed calling webhook "namespace.inject.sluice.dev"');
  expect(containers(await create('plain', 'late'))).toEqual(['app']);
});
