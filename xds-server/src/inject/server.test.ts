import https from 'node:https';
import net from 'node:net';
import type { V1Pod } from '@kubernetes/client-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { SILENT } from '../log.ts';
import type { AdmissionReview } from './admission.ts';
import { parseInjection } from './config.ts';
import { WebhookServer } from './server.ts';
import { type Identity, issue, makeAuthority } from './x509.ts';

const config = parseInjection({ image: 'mesh/proxy:1', emptyImage: 'mesh/empty:1' });
let authorities: Identity[];
let server: WebhookServer;

beforeAll(async () => {
  const now = Date.now();
  authorities = [await makeAuthority('one', { now, days: 1 }), await makeAuthority('two', { now, days: 1 })];
  server = new WebhookServer({ host: '127.0.0.1', port: 0, config, log: SILENT, lingerMs: 500 });
  await server.serve(await issue(authorities[0]!, ['127.0.0.1'], { now, days: 1 }));
});
afterAll(() => server.close());

interface Answer {
  readonly status: number | undefined;
  readonly connection: string | undefined;
  readonly body: { readonly message?: string; readonly response: Partial<AdmissionReview['response']> };
}

function call(
  text: string,
  { path = '/inject', method = 'POST', type = 'application/json', ca = authorities[0]! } = {},
) {
  return new Promise<Answer>((resolve, reject) => {
    const options = {
      ca: ca.certificate,
      port: server.port,
      path,
      method,
      agent: new https.Agent({ keepAlive: true }),
      headers: { 'content-type': type },
    };
    https
      .request({ host: '127.0.0.1', ...options }, (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (part: string) => {
          body += part;
        });
        response.once('end', () =>
          resolve({ status: response.statusCode, connection: response.headers.connection, body: JSON.parse(body) }),
        );
      })
      .once('error', reject)
      .end(text);
  });
}

const asking = (pod: Partial<V1Pod>, more: object = {}) =>
  JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: '7',
      operation: 'CREATE',
      resource: { group: '', version: 'v1', resource: 'pods' },
      object: pod,
      ...more,
    },
  });
const pod: V1Pod = { metadata: { generateName: 'shop-' }, spec: { containers: [{ name: 'app' }] } };

test('a Pod gets a patch', async () => {
  const { status, body } = await call(asking(pod));
  expect([status, body.response.uid, body.response.allowed, body.response.patchType]).toEqual([
    200,
    '7',
    true,
    'JSONPatch',
  ]);
  const patch = JSON.parse(Buffer.from(body.response.patch ?? '', 'base64').toString());
  expect(patch.map(({ op }: { op: string }) => op)).toEqual(patch.map(() => 'add'));
});

test('a refusal and a warning are told; what is no new Pod is let through', async () => {
  const foreign = await call(asking({ ...pod, metadata: { annotations: { 'sidecar.istio.io/status': '{}' } } }));
  expect(foreign.body.response).toMatchObject({
    allowed: false,
    status: { code: 403, message: expect.stringContaining('sidecar.istio.io/status') },
  });
  const host = await call(asking({ spec: { hostNetwork: true, containers: [] } }));
  expect(host.body.response).toMatchObject({ allowed: true, warnings: [expect.stringContaining('hostNetwork')] });
  const { body } = await call(asking(pod, { operation: 'UPDATE' }));
  expect(body.response).toEqual({ uid: '7', allowed: true });
});

test.each([
  ['no JSON', '{', {}, 400],
  ['no review', '{}', {}, 400],
  ['null', 'null', {}, 400],
  ['another version', JSON.stringify({ apiVersion: 'admission.k8s.io/v1beta1', kind: 'AdmissionReview' }), {}, 400],
  ['no uid', asking(pod, { uid: undefined }), {}, 400],
  ['no Pod', asking({ spec: { containers: 7 } } as unknown as V1Pod), {}, 400],
  ['another path', asking(pod), { path: '/other' }, 404],
  ['another method', asking(pod), { method: 'PUT' }, 405],
  ['another type', asking(pod), { type: 'text/plain' }, 415],
  ['more than the bound', ' '.repeat(8 * 1024 * 1024 + 1), {}, 413],
])('%s: a clear answer', async (_, text, options, status) => {
  const answer = await call(text, options);
  expect([answer.status, typeof answer.body.message]).toEqual([status, 'string']);
});

test('another certificate is served to new connections from now on', async () => {
  const now = Date.now();
  await server.serve(await issue(authorities[1]!, ['127.0.0.1'], { now, days: 1 }));
  await expect(call(asking(pod))).rejects.toThrow(/unable to verify|self.signed|signature/i);
  expect((await call(asking(pod), { ca: authorities[1]! })).status).toBe(200);
});

test('after a certificate that can not be served comes one that can, and after a port that is taken one that is free', async () => {
  const taken = net.createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  const { port } = taken.address() as net.AddressInfo;
  const late = new WebhookServer({ host: '127.0.0.1', port, config, log: SILENT, lingerMs: 0 });
  const good = await issue(authorities[0]!, ['127.0.0.1'], { now: Date.now(), days: 1 });
  await expect(late.serve({ certificate: 'none', key: 'none' })).rejects.toThrow();
  await expect(late.serve(good)).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  await new Promise((resolve) => taken.close(resolve));
  await late.serve(good);
  expect(late.port).toBe(port);
  await late.close();
});

test('one that ends answers for a while longer, and wants each connection to end', async () => {
  const closed = server.close();
  const answer = await call(asking(pod), { ca: authorities[1]! });
  expect([answer.status, answer.connection]).toEqual([200, 'close']);
  await closed;
  await expect(call(asking(pod), { ca: authorities[1]! })).rejects.toThrow(/ECONNREFUSED/);
});
