/** The server on a real gRPC connection: what pure state can not show. */
import { once } from 'node:events';
import { Client, type ClientDuplexStream, credentials, type ServiceError, status } from '@grpc/grpc-js';
import { afterEach, describe, expect, it } from 'vitest';
import { decodeMessage, encodeMessage } from '../resources/encode.ts';
import { TYPE_URL } from '../resources/types.ts';
import { SnapshotCache } from './cache.ts';
import { type Marks, resource, snapshot } from './fixtures.ts';
import { type AckEvent, createXdsServer, type NackEvent, type XdsServer } from './index.ts';
import type { XdsNode } from './node.ts';
import { Encoder, type Snapshot } from './snapshot.ts';

const ADS = '/envoy.service.discovery.v3.AggregatedDiscoveryService/';
const node = (id: string, epoch = 1): object => ({
  id,
  metadata: { fields: { SLUICE_EPOCH: { stringValue: String(epoch) }, SLUICE_WASM: { stringValue: '/f.wasm' } } },
});

interface Peer {
  send(message: object): void;
  /** The next response, decoded. */
  next(): Promise<Record<string, unknown>>;
  readonly call: ClientDuplexStream<object, Record<string, unknown>>;
}

const open: Client[] = [];
let server: XdsServer | undefined;

function peer(port: number, path: string, mode: 'sotw' | 'delta' = 'sotw'): Peer {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  open.push(client);
  const prefix = `envoy.service.discovery.v3.${mode === 'sotw' ? '' : 'Delta'}Discovery`;
  const call = client.makeBidiStreamRequest(
    path,
    (message: object) => encodeMessage(`${prefix}Request`, message),
    (bytes) => decodeMessage(`${prefix}Response`, bytes),
    { deadline: Date.now() + 10_000 },
  );
  call.on('error', () => {});
  const responses: Record<string, unknown>[] = [];
  const waiting: ((response: Record<string, unknown>) => void)[] = [];
  call.on('data', (response) => {
    const taker = waiting.shift();
    if (taker === undefined) responses.push(response);
    else taker(response);
  });
  return {
    call,
    send: (message) => void call.write(message),
    next: () => {
      const ready = responses.shift();
      if (ready !== undefined) return Promise.resolve(ready);
      return new Promise((resolve, reject) => {
        waiting.push(resolve);
        call.once('error', reject);
      });
    },
  };
}

async function start(snapshotFor: (of: XdsNode) => Snapshot | undefined): Promise<number> {
  server = createXdsServer({ log: { info: () => {}, warn: () => {} }, snapshotFor });
  return server.bind('127.0.0.1:0');
}

function names(response: Record<string, unknown>): string[] {
  return (response.resources as { name?: string; value?: Uint8Array }[]).map((any) =>
    any.name ? any.name : String(decodeMessage('envoy.config.cluster.v3.Cluster', any.value!).name),
  );
}

afterEach(async () => {
  for (const client of open.splice(0)) client.close();
  await server?.close(200);
  server = undefined;
});

describe('xDS server', () => {
  it('serves ADS with a nonce of its own for each stream and one body for all', async () => {
    const set = snapshot({ cds: { one: 1, two: 1 } });
    const port = await start(() => set);
    const peers = ['a', 'b', 'c'].map((id) => {
      const one = peer(port, `${ADS}StreamAggregatedResources`);
      one.send({ node: node(id), type_url: TYPE_URL.cds });
      return one;
    });
    for (const one of peers) {
      const response = await one.next();
      expect(names(response)).toEqual(['one', 'two']);
      expect(response).toMatchObject({ type_url: TYPE_URL.cds, nonce: '1' });
      expect(response.version_info).toMatch(/^[0-9a-f]{16}$/);
    }
    expect(server?.stats).toEqual({ streams: 3, bodiesBuilt: 1 });
  });

  it.each([
    ['listener.v3.ListenerDiscoveryService', 'Listeners', 'lds'],
    ['route.v3.RouteDiscoveryService', 'Routes', 'rds'],
    ['cluster.v3.ClusterDiscoveryService', 'Clusters', 'cds'],
    ['endpoint.v3.EndpointDiscoveryService', 'Endpoints', 'eds'],
    ['secret.v3.SecretDiscoveryService', 'Secrets', 'sds'],
    ['extension.v3.ExtensionConfigDiscoveryService', 'ExtensionConfigs', 'ecds'],
    ['runtime.v3.RuntimeDiscoveryService', 'Runtime', 'rtds'],
  ] as const)('serves %s alone, in both variants, without a type URL too', async (service, what, kind) => {
    const set = snapshot({ [kind]: { x: 1 } } as Marks);
    const port = await start(() => set);
    const sotw = peer(port, `/envoy.service.${service}/Stream${what}`);
    sotw.send({ node: node('a'), resource_names: ['x'] });
    expect(await sotw.next()).toMatchObject({ type_url: TYPE_URL[kind], resources: [{}] });
    const delta = peer(port, `/envoy.service.${service}/Delta${what}`, 'delta');
    delta.send({ node: node('a'), resource_names_subscribe: ['x'] });
    expect(await delta.next()).toMatchObject({
      type_url: TYPE_URL[kind],
      nonce: '1',
      resources: [{ name: 'x', version: set.get(kind, 'x')!.version, resource: { type_url: TYPE_URL[kind] } }],
    });
  });

  it('tells ACK from NACK, and keeps what was taken before', async () => {
    const cache = new SnapshotCache();
    const put = (mark: number) =>
      cache.setResources({
        shared: new Map([['cds', new Map([['one', resource('cds', 'one', mark)]])]]),
        byProxy: new Map(),
        count: 1,
      });
    put(1);
    const port = await start((of) => cache.snapshotFor(of));
    const client = peer(port, `${ADS}StreamAggregatedResources`);
    const ack = once(server!.events, 'ack') as Promise<[AckEvent]>;
    client.send({ node: node('p', 7), type_url: TYPE_URL.cds });
    const first = await client.next();
    client.send({ type_url: TYPE_URL.cds, version_info: first.version_info, response_nonce: first.nonce });
    expect((await ack)[0]).toMatchObject({
      proxy: 'p',
      epoch: 7,
      kind: 'cds',
      version: first.version_info,
      names: ['one'],
    });
    const taken = server!.acked('p', 7, 'cds')!.resources.get('one');

    put(2);
    server!.refresh('p');
    const second = await client.next();
    const nack = once(server!.events, 'nack') as Promise<[NackEvent]>;
    client.send({
      type_url: TYPE_URL.cds,
      response_nonce: second.nonce,
      error_detail: { code: 3, message: 'no good' },
    });
    expect((await nack)[0]).toMatchObject({ proxy: 'p', message: 'no good', version: second.version_info });
    const state = server!.acked('p', 7, TYPE_URL.cds)!;
    expect(state).toMatchObject({ version: first.version_info, nacked: { message: 'no good', names: ['one'] } });
    expect(state.resources.get('one')).toBe(taken);
  });

  it('gives an overlay to its own epoch only', async () => {
    const cache = new SnapshotCache({ onChange: (proxy, epoch) => server?.refresh(proxy, epoch) });
    const port = await start((of) => cache.snapshotFor(of));
    const [old, young] = [1, 2].map((epoch) => {
      const one = peer(port, `${ADS}StreamAggregatedResources`);
      one.send({ node: node('p', epoch), type_url: TYPE_URL.ecds, resource_names: ['sluice.drain'] });
      one.send({ type_url: TYPE_URL.cds });
      return one;
    });
    expect(await old!.next()).toMatchObject({ type_url: TYPE_URL.cds, resources: [] });
    expect(await young!.next()).toMatchObject({ type_url: TYPE_URL.cds, resources: [] });
    cache.setOverlay('p', 1, [{ kind: 'ecds', name: 'sluice.drain', json: resource('ecds', 'sluice.drain', 1) }]);
    expect(await old!.next()).toMatchObject({ type_url: TYPE_URL.ecds });
    // The young one's next response is to its own request: nothing came before it.
    young!.send({ type_url: TYPE_URL.cds, response_nonce: '1' });
    young!.send({ type_url: TYPE_URL.lds });
    expect(await young!.next()).toMatchObject({ type_url: TYPE_URL.lds });
    expect(server!.nodes()).toMatchObject([
      { id: 'p', epoch: 1, wasm: '/f.wasm' },
      { id: 'p', epoch: 2 },
    ]);
  });

  it('refuses a stream that names no node', async () => {
    const port = await start(() => undefined);
    const client = peer(port, `${ADS}StreamAggregatedResources`);
    const failed = once(client.call, 'error') as Promise<[ServiceError]>;
    client.send({ type_url: TYPE_URL.cds });
    expect((await failed)[0].code).toBe(status.INVALID_ARGUMENT);
  });

  it('lives through bytes that are no request, and serves the next client', async () => {
    const set = snapshot({ cds: { one: 1 } });
    const port = await start(() => set);
    const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
    open.push(client);
    const raw = client.makeBidiStreamRequest(
      `${ADS}StreamAggregatedResources`,
      (bytes: Buffer) => bytes,
      (bytes) => bytes,
    );
    const failed = once(raw, 'error');
    raw.write(Buffer.from([0xff, 0xff, 0xff, 0x01]));
    await failed;
    const good = peer(port, `${ADS}StreamAggregatedResources`);
    good.send({ node: node('a'), type_url: TYPE_URL.cds });
    expect(names(await good.next())).toEqual(['one']);
  });

  it('answers a stream of an unknown proxy as soon as the proxy is known', async () => {
    let known: Snapshot | undefined;
    const port = await start(() => known);
    const client = peer(port, `${ADS}DeltaAggregatedResources`, 'delta');
    const connected = once(server!.events, 'connect');
    client.send({ node: node('late'), type_url: TYPE_URL.cds });
    await connected;
    known = snapshot({ cds: { one: 1 } });
    server!.push('late', undefined, known);
    expect(names(await client.next())).toEqual(['one']);
  });

  it('ignores a type that it does not serve', async () => {
    const set = snapshot({ cds: { one: 1 } });
    const port = await start(() => set);
    const client = peer(port, `${ADS}StreamAggregatedResources`);
    client.send({ node: node('a'), type_url: 'type.googleapis.com/envoy.config.route.v3.VirtualHost' });
    client.send({ type_url: TYPE_URL.cds });
    expect(await client.next()).toMatchObject({ type_url: TYPE_URL.cds });
  });

  it('says when the last stream of an epoch ends, and forgets what it had said', async () => {
    const set = snapshot({ cds: { one: 1 } });
    const port = await start(() => set);
    const client = peer(port, `${ADS}StreamAggregatedResources`);
    client.send({ node: node('a', 4), type_url: TYPE_URL.cds });
    const { nonce } = await client.next();
    const ack = once(server!.events, 'ack');
    client.send({ type_url: TYPE_URL.cds, response_nonce: nonce });
    await ack;
    const gone = once(server!.events, 'disconnect');
    client.call.end();
    expect((await gone)[0]).toMatchObject({ id: 'a', epoch: 4 });
    expect(server!.acked('a', 4, 'cds')).toBeUndefined();
    expect(server!.stats.streams).toBe(0);
  });
});

describe('snapshot cache', () => {
  const encoder = new Encoder();
  const of = (id: string, epoch = 1): XdsNode => ({
    id,
    epoch,
    cluster: '',
    metadata: {},
    slot: '',
    wasm: undefined,
    userAgentVersion: '',
  });
  const clusters = (...list: string[]) =>
    new Map([['cds' as const, new Map(list.map((name) => [name, resource('cds', name, 1)]))]]);

  it('gives proxies with the same resources the same snapshot, and one with its own a wider one', () => {
    const cache = new SnapshotCache();
    cache.setResources({ shared: clusters('one'), byProxy: new Map([['special', clusters('own')]]), count: 2 });
    expect(cache.snapshotFor(of('a'))).toBe(cache.snapshotFor(of('b', 2)));
    expect([...cache.snapshotFor(of('special')).all('cds').keys()]).toEqual(['one', 'own']);
    expect(cache.snapshotFor(of('special')).get('cds', 'one')).toBe(cache.snapshotFor(of('a')).get('cds', 'one'));
  });

  it('transforms a resource once for each key', () => {
    let calls = 0;
    const cache = new SnapshotCache({
      transform: {
        key: (node) => node.slot,
        apply: (_kind, json, node) => {
          calls += 1;
          return { ...json, alt_stat_name: `slot-${node.slot}` };
        },
      },
    });
    cache.setResources({ shared: clusters('one'), byProxy: new Map(), count: 1 });
    const versions = [of('a'), of('b'), { ...of('c'), slot: 'x' }].map(
      (n) => cache.snapshotFor(n).get('cds', 'one')!.version,
    );
    expect(calls).toBe(2);
    expect(versions[0]).toBe(versions[1]);
    expect(versions[2]).not.toBe(versions[0]);
  });

  it('refuses an overlay that is no resource, and keeps the one before', () => {
    const cache = new SnapshotCache();
    cache.setOverlay('p', 1, [{ kind: 'ecds', name: 'x', json: resource('ecds', 'x', 1) }]);
    expect(() => cache.setOverlay('p', 1, [{ kind: 'ecds', name: 'x', json: { nmae: 'x' } }])).toThrow(/nmae/);
    expect(cache.snapshotFor(of('p')).get('ecds', 'x')).toBeDefined();
    cache.setOverlay('p', 1, undefined);
    expect(cache.snapshotFor(of('p')).get('ecds', 'x')).toBeUndefined();
  });

  it('encodes equal content once', () => {
    const before = encoder.encoded;
    const json = resource('cds', 'same', 1);
    expect(encoder.encode('cds', 'same', json)).toBe(encoder.encode('cds', 'same', json));
    expect(encoder.encoded).toBe(before + 1);
    expect(encoder.encode('cds', 'same', { ...json })).toBe(encoder.encode('cds', 'same', json));
  });
});
