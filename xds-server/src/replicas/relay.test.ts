/** The relay between two real servers: what only a gRPC connection can show. */
import {
  Client,
  type ClientDuplexStream,
  credentials,
  Server,
  ServerCredentials,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { SILENT } from '../log.ts';
import { decodeMessage, encodeMessage } from '../resources/encode.ts';
import { TYPE_URL } from '../resources/types.ts';
import { snapshot } from '../xds/fixtures.ts';
import { createXdsServer, type XdsServer } from '../xds/index.ts';
import type { XdsCall } from '../xds/services.ts';
import type { Replica } from './membership.ts';
import { XdsRelay } from './relay.ts';

const METHOD = '/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources';
const prefix = 'envoy.service.discovery.v3.Discovery';

interface Side {
  readonly server: XdsServer;
  readonly relay: XdsRelay;
  readonly replica: Replica;
}
const open: (Client | Server)[] = [];
const sides: Side[] = [];
/** Whose the proxies are, as every replica sees it; a test may make them disagree. */
let owner: (self: string, proxy: string) => Replica | undefined;
let a: Side;
let b: Side;

async function side(id: string): Promise<Side> {
  const relay = new XdsRelay({ self: id, elsewhere: (proxy) => owner(id, proxy), log: SILENT });
  const set = snapshot({ cds: { [`${id}-0`]: 1 } });
  const server = createXdsServer({
    log: SILENT,
    snapshotFor: () => set,
    passOn: (call, first, node) => relay.take(call, first, node.id),
  });
  const port = await server.bind('127.0.0.1:0');
  const made = { server, relay, replica: { id, api: '', xds: `127.0.0.1:${port}` } };
  sides.push(made);
  return made;
}

beforeEach(async () => {
  owner = () => undefined;
  [a, b] = [await side('a'), await side('b')];
  owner = (self, proxy) => (proxy === 'edge' && self !== 'b' ? b.replica : undefined);
});
afterEach(async () => {
  for (const one of open.splice(0)) one instanceof Server ? one.forceShutdown() : one.close();
  for (const { relay, server } of sides.splice(0)) {
    relay.close();
    await server.close(200);
  }
});

interface Peer {
  readonly call: ClientDuplexStream<object, Record<string, unknown>>;
  send(message: object): void;
  next(): Promise<Record<string, unknown>>;
  readonly over: Promise<ServiceError | undefined>;
}

function envoy({ replica }: Side): Peer {
  const client = new Client(replica.xds, credentials.createInsecure());
  open.push(client);
  const call = client.makeBidiStreamRequest(
    METHOD,
    (message: object) => encodeMessage(`${prefix}Request`, message),
    (bytes) => decodeMessage(`${prefix}Response`, bytes),
    { deadline: Date.now() + 20_000 },
  );
  const over = Promise.withResolvers<ServiceError | undefined>();
  call.on('error', (error) => over.resolve(error as ServiceError));
  call.on('end', () => setImmediate(() => over.resolve(undefined)));
  return {
    call,
    send: (message) => void call.write(message),
    next: () => new Promise((resolve) => call.once('data', resolve)),
    over: over.promise,
  };
}

const ask = (proxy: string) => ({ node: { id: proxy }, type_url: TYPE_URL.cds });
const clusters = (response: Record<string, unknown>) =>
  (response.resources as { value: Uint8Array }[]).map(
    ({ value }) => decodeMessage('envoy.config.cluster.v3.Cluster', value).name,
  );

it('a stream of another replica’s proxy is answered by that one, its acks too; others are served here', async () => {
  const [edge, other] = [envoy(a), envoy(a)];
  edge.send(ask('edge'));
  other.send(ask('other'));
  const [first, own] = await Promise.all([edge.next(), other.next()]);
  expect(clusters(first)).toEqual(['b-0']);
  expect(clusters(own)).toEqual(['a-0']);
  const acked = new Promise((resolve) => b.server.events.once('ack', resolve));
  edge.send({ type_url: TYPE_URL.cds, response_nonce: first.nonce, version_info: first.version_info });
  expect(await acked).toMatchObject({ proxy: 'edge', kind: 'cds' });
  expect(a.server.nodes().map((node) => node.id)).toEqual(['other']);
  expect(b.server.nodes().map((node) => node.id)).toEqual(['edge']);
  expect(a.relay.streams).toBe(1);
});

it('ends both ways: Envoy’s end, its cancellation, the owner’s end', async () => {
  const gone = () => new Promise((resolve) => b.server.events.once('disconnect', resolve));
  const half = envoy(a);
  half.send(ask('edge'));
  await half.next();
  let over = gone();
  half.call.end();
  await over;
  expect(await half.over).toBeUndefined();

  const cancelled = envoy(a);
  cancelled.send(ask('edge'));
  await cancelled.next();
  over = gone();
  cancelled.call.cancel();
  await over;

  const ended = envoy(a);
  ended.send(ask('edge'));
  await ended.next();
  b.server.end((node) => node.id === 'edge');
  expect(await ended.over).toBeUndefined();
  expect(a.relay.streams).toBe(0);
});

it('fails as unavailable when the owner dies or can not be reached, or is another one from now on', async () => {
  const edge = envoy(a);
  edge.send(ask('edge'));
  await edge.next();
  await b.server.close(0);
  expect((await edge.over)?.code ?? status.OK).toBeOneOf([status.UNAVAILABLE, status.OK]);
  const again = envoy(a);
  again.send(ask('edge'));
  expect((await again.over)?.code).toBe(status.UNAVAILABLE);

  const c = await side('c');
  owner = (self) => (self === 'a' ? c.replica : undefined);
  const moving = envoy(a);
  moving.send(ask('edge'));
  expect(clusters(await moving.next())).toEqual(['c-0']);
  a.relay.moved();
  expect(a.relay.streams).toBe(1);
  owner = () => undefined;
  a.relay.moved();
  expect((await moving.over)?.code).toBe(status.UNAVAILABLE);
  const mine = envoy(a);
  mine.send(ask('edge'));
  expect(clusters(await mine.next())).toEqual(['a-0']);
});

it('is passed on once only: two that do not agree whose it is refuse it', async () => {
  owner = (self) => (self === 'a' ? b.replica : a.replica);
  const edge = envoy(a);
  edge.send(ask('edge'));
  const error = await edge.over;
  expect(error).toMatchObject({ code: status.UNAVAILABLE });
  expect(error?.details).toContain('edge belongs to a, not to b');
});

it('an Envoy that does not read holds the owner back instead of filling the relay', async () => {
  const [messages, bytes] = [1_000, 64 * 1024];
  let written = 0;
  const fast = new Server();
  open.push(fast);
  const raw = (value: Buffer): Buffer => value;
  fast.addService(
    {
      stream: {
        path: METHOD,
        requestStream: true,
        responseStream: true,
        requestSerialize: raw,
        requestDeserialize: raw,
        responseSerialize: raw,
        responseDeserialize: raw,
      },
    },
    {
      stream: (call: XdsCall) => {
        const body = encodeMessage(`${prefix}Response`, { nonce: 'x'.repeat(bytes) });
        const more = (): void => {
          let taken = true;
          while (taken && written < messages) {
            taken = call.write(body);
            written++;
          }
          if (written === messages) call.end();
        };
        call.on('drain', more);
        more();
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) =>
    fast.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, at) =>
      error ? reject(error) : resolve(at),
    ),
  );
  owner = (self) => (self === 'a' ? { ...b.replica, xds: `127.0.0.1:${port}` } : undefined);
  const edge = envoy(a);
  edge.send(ask('edge'));
  await edge.next();
  edge.call.pause();
  // Quiet for a while: everything between the two is full.
  let before = -1;
  while (written !== before || written === 0) {
    before = written;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  expect(written).toBeLessThan(messages / 4);
  let read = 1;
  edge.call.on('data', () => read++);
  edge.call.resume();
  expect(await edge.over).toBeUndefined();
  expect(read).toBe(messages);
});
