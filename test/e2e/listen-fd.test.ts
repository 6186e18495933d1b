import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import path from 'node:path';
import tls from 'node:tls';
import { migrate } from '@sluice/agent/listen-fd';
import { afterEach, expect, test } from 'vitest';
import { selfSigned } from '../harness/certificate.ts';
import { newConnections } from '../harness/connects.ts';
import { dieAfterAccepting } from '../harness/half-transfer.ts';
import { type ConnectFailure, ConnectionLog, SLOW_CONNECT_MS } from '../harness/load/connections.ts';
import { Http1Client } from '../harness/load/http1.ts';
import { Http2Client } from '../harness/load/http2.ts';
import { reconcile } from '../harness/load/reconcile.ts';
import type { Tally } from '../harness/load/tally.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { type Child, start, until } from '../harness/process.ts';

let block: Block;
const servers: NodeServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.child.stop();
  await block?.release();
});

interface Line {
  readonly event: string;
  readonly takenOver?: boolean;
  readonly connections?: number;
  readonly report?: { drained: boolean; left: { peer: string; protocol: string; inFlight: number }[]; ms: number };
  readonly seen?: string[];
  readonly [field: string]: unknown;
}

class NodeServer {
  child!: Child;
  readonly lines: Line[] = [];
  #waiting: (() => void)[] = [];

  static async start(config: object): Promise<NodeServer> {
    const server = new NodeServer();
    const main = path.join(import.meta.dirname, '../harness/listen-fd-server.ts');
    server.child = await start(process.execPath, ['--conditions=sluice-source', main, JSON.stringify(config)], {
      name: 'server',
      ready: /"event":"serving"/,
      onLine: (text) => {
        if (!text.startsWith('{')) return;
        server.lines.push(JSON.parse(text) as Line);
        for (const wake of server.#waiting.splice(0)) wake();
      },
    });
    servers.push(server);
    return server;
  }

  /** Its line of that event, also one that has come. Rejects when it ends before. */
  async line(event: string): Promise<Line> {
    for (;;) {
      const found = this.lines.find((line) => line.event === event);
      if (found) return found;
      const more = new Promise<void>((resolve) => this.#waiting.push(resolve));
      const ended = this.child.ended.then(() => {
        if (!this.lines.some((line) => line.event === event))
          throw new Error(`ended before ${event}:\n${this.child.tail}`);
      });
      await Promise.race([more, ended]);
    }
  }
}

async function config(more: object = {}) {
  block = await claimBlock();
  const [p2, p2b, p1] = [await block.port(), await block.port(), await block.port()];
  const addresses = { http2: [`127.0.0.1:${p2}`, `127.0.0.1:${p2b}`], http1: [`127.0.0.1:${p1}`] };
  return { ports: [p2, p2b, p1] as const, config: { dir: block.dir, ...addresses, ...more } };
}

const RATE = 150;

test('three generations of a Node server under load: every request is answered, each generation drains and ends', async () => {
  const { ports, config: given } = await config();
  const [p2, p2b, p1] = ports;
  const first = await NodeServer.start(given);
  expect(first.lines.at(-1)?.takenOver).toBe(false);

  const failures: ConnectFailure[] = [];
  const log = new ConnectionLog((failure) => failures.push(failure));
  const to = (http: number) => ({ host: '127.0.0.1', http, tls: 0, tcp: 0 });
  const clients = [
    new Http2Client(to(p2), { name: 'http2', sessions: 6, rate: RATE, maxDelayMs: 300 }),
    new Http2Client(to(p2b), { name: 'http2-second-address', sessions: 3, rate: RATE, maxDelayMs: 300 }),
    new Http1Client(to(p1), { name: 'http1', connections: 8, rate: RATE, maxDelayMs: 300 }),
    new Http1Client(to(p1), { name: 'http1-post', connections: 4, rate: RATE / 2, post: true, maxDelayMs: 300 }),
  ];
  for (const client of clients) client.start();
  const fresh = newConnections(p1, 300);
  // An idle one is told as well.
  const idle = http2.connect(`http://127.0.0.1:${p2}`);
  idle.on('error', () => {});
  const goaway = new Promise<number>((resolve) => idle.once('goaway', (_, last) => resolve(last)));
  await new Promise((resolve) => idle.once('remoteSettings', resolve));
  await busy(clients);

  const second = await NodeServer.start(given);
  expect(second.lines.at(-1)?.takenOver).toBe(true);
  const drained = [await first.line('drained')];
  expect(await goaway).toBe(2 ** 31 - 1);
  await busy(clients);
  const third = await NodeServer.start(given);
  drained.push(await second.line('drained'));
  await busy(clients);

  await Promise.all(clients.map((client) => client.stop()));
  log.close();
  const counts = await fresh.stop();
  const fourth = await NodeServer.start(given);
  drained.push(await third.line('drained'));

  for (const { report } of drained) expect(report).toMatchObject({ drained: true, left: [] });
  expect(await Promise.all([first, second, third].map((s) => s.child.ended))).toEqual(
    Array(3).fill({ code: 0, signal: null }),
  );
  expect(counts).toMatchObject({ refused: 0, lost: 0, failures: [] });
  expect(failures).toEqual([]);
  for (const { tally } of clients) expect(tally.failures, tally.name).toEqual([]);
  const seen = new Map<string, number>();
  for (const { seen: ids } of drained) for (const id of ids ?? []) seen.set(id, (seen.get(id) ?? 0) + 1);
  expect(
    reconcile(
      clients.map(({ tally }) => tally),
      seen,
    ),
  ).toEqual([]);
  const sums = clients.map(({ tally }) => `${tally.name} ${tally.total} (${tally.refused.size} not sent)`);
  const times = drained.map(({ report }) => report?.ms);
  console.log(
    `listen-fd, Node: ${sums.join(', ')}, new connections ${counts.answered}; drains in ${times.join(', ')} ms`,
  );
  await fourth.child.stop();
});

test('the queue of a socket that was taken over is as long as before: 1,500 connects to a successor that stands still', async () => {
  const { ports, config: given } = await config();
  await NodeServer.start(given);
  const second = await NodeServer.start(given);
  const somaxconn = Number(readFileSync('/proc/sys/net/core/somaxconn', 'utf8'));
  const many = Math.min(1_500, somaxconn - 1);
  second.child.kill('SIGSTOP');
  const sockets = await Promise.all(
    Array.from({ length: many }, async () => {
      const begun = performance.now();
      const socket = net.connect(ports[2], '127.0.0.1');
      await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
      // A connect that meets a full queue is answered after its SYN was sent again, a second later.
      return { socket, late: performance.now() - begun > SLOW_CONNECT_MS };
    }),
  );
  second.child.kill('SIGCONT');
  expect(sockets.filter(({ late }) => late)).toHaveLength(0);
  for (const { socket } of sockets) socket.destroy();
});

test('what is left at the bound is named, and nothing is cut before', async () => {
  const { ports, config: given } = await config({ maxDrainMs: 300 });
  const first = await NodeServer.start(given);
  const silent = net.connect(ports[2], '127.0.0.1');
  silent.on('error', () => {});
  silent.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
  await new Promise((resolve) => silent.once('data', resolve));
  await NodeServer.start(given);
  const { report } = await first.line('drained');
  expect(report).toMatchObject({
    drained: false,
    left: [{ peer: `127.0.0.1:${silent.localPort}`, protocol: 'http1', inFlight: 0 }],
  });
  silent.destroy();
});

test('a successor that can not serve leaves the one that runs accepting; two that start at once share nothing out', async () => {
  const { ports, config: given } = await config();
  const first = await NodeServer.start(given);
  const blocked = net.createServer().listen(await block.port(), '127.0.0.1');
  await new Promise((resolve) => blocked.once('listening', resolve));
  const { port } = blocked.address() as net.AddressInfo;
  const wrong = { ...given, http2: [...given.http2, `127.0.0.1:${port}`] };
  await expect(NodeServer.start(wrong)).rejects.toThrow(/EADDRINUSE/);
  expect(first.lines.some(({ event }) => event === 'released')).toBe(false);
  expect((await newConnectionsOnce(ports[2])).answered).toBeGreaterThan(0);
  blocked.close();

  // One that dies when the first has stopped already: it accepts again, and is no draining one.
  await dieAfterAccepting(`${given.dir}/node.sock`);
  expect((await newConnectionsOnce(ports[2])).failures).toEqual([]);
  expect(first.lines.some(({ event }) => event === 'released')).toBe(false);

  const both = await Promise.all([NodeServer.start(given), NodeServer.start(given)]);
  await first.line('drained');
  // One took over from the first, the other from that one.
  await Promise.race(both.map((server) => server.line('drained')));
  expect(both.filter((server) => server.lines.some(({ event }) => event === 'released'))).toHaveLength(1);
  expect((await newConnectionsOnce(ports[2])).failures).toEqual([]);
});

test('over TLS: HTTP/2 and HTTP/1 on one port are counted by their TCP connections, told, and counted out', async () => {
  const { ports, config: given } = await config();
  const { certificate, key } = selfSigned('localhost');
  const answers: (() => void)[] = [];
  const generation = async () => {
    const server = http2.createSecureServer({ cert: certificate, key, allowHTTP1: true }, (request, response) => {
      if (request.url === '/wait') answers.push(() => response.end('at last'));
      else response.end('served');
    });
    return migrate(server, { socket: `${given.dir}/tls.sock`, addresses: [`127.0.0.1:${ports[0]}`], tellOverMs: 0 });
  };
  const first = await generation();
  const origin = `https://127.0.0.1:${ports[0]}`;
  const session = http2.connect(origin, { rejectUnauthorized: false });
  session.on('error', () => {});
  const waiting = ask(session, '/wait');
  const agent = new https.Agent({ keepAlive: true, rejectUnauthorized: false });
  expect(await get(agent, `${origin}/`)).toEqual({ body: 'served', connection: 'keep-alive' });
  // Connected, and no TLS yet.
  const slow = net.connect(ports[0], '127.0.0.1');
  slow.on('error', () => {});
  await until('all are counted', () => (first.connections().length === 3 ? true : undefined));
  await until('the request is there', () => (answers.length === 1 ? true : undefined));
  const told = new Promise((resolve) => session.once('goaway', resolve));

  const second = await generation();
  await first.released;
  await told;
  expect(
    first
      .connections()
      .map(({ protocol, inFlight }) => `${protocol} ${inFlight}`)
      .sort(),
  ).toEqual(['http1 0', 'http2 1', 'unknown 0']);
  expect(await get(agent, `${origin}/`)).toEqual({ body: 'served', connection: 'close' });
  answers[0]?.();
  expect(await waiting).toBe('at last');
  // Its handshake ends only now: it is served by the old one, and told.
  const late = http2.connect(origin, {
    createConnection: () => tls.connect({ socket: slow, rejectUnauthorized: false, ALPNProtocols: ['h2'] }),
  });
  late.on('error', () => {});
  await new Promise((resolve) => late.once('goaway', resolve));
  late.close();
  expect(await first.drained).toMatchObject({ drained: true, left: [] });
  second.drain();
  expect(await second.drained).toMatchObject({ drained: true });
  agent.destroy();
});

function ask(session: http2.ClientHttp2Session, url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let body = '';
    const stream = session.request({ ':path': url });
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      body += chunk;
    });
    stream.on('end', () => resolve(body)).on('error', reject);
  });
}

function get(agent: https.Agent, url: string): Promise<{ body: string; connection: string | undefined }> {
  return new Promise((resolve, reject) => {
    https
      .get(url, { agent }, (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          body += chunk;
        });
        response.on('end', () => resolve({ body, connection: response.headers.connection }));
      })
      .on('error', reject);
  });
}

async function newConnectionsOnce(port: number) {
  const load = newConnections(port, 200);
  await load.until('20 connections', ({ answered, lost, refused }) => answered + lost + refused >= 20);
  return load.stop();
}

/** Until each client has had some more answers. */
async function busy(clients: readonly { tally: Tally }[]): Promise<void> {
  await Promise.all(
    clients.map(({ tally }) => {
      const wanted = tally.total + RATE;
      return tally.conditions.until(`${wanted} answers`, () => tally.total >= wanted);
    }),
  );
}
