import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import path from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { Conditions } from '../harness/conditions.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { endEpochs, KeeperProcess } from '../harness/keeper.ts';
import { Http1Connection } from '../harness/load/http1-connection.ts';
import { neverSent } from '../harness/load/http2-streams.ts';
import { startMesh } from '../harness/mesh.ts';
import { claimBlock } from '../harness/ports.ts';
import { staticBootstrap } from '../harness/static-bootstrap.ts';

/** Whoever comes from here is never told to leave. */
const LEFT_ALONE = '127.0.0.9';
const TOLD = '127.0.0.1';
const POLICY = {
  http1: { silentIdleGraceMs: 60_000 },
  rules: [{ name: 'left alone', match: { peers: [`${LEFT_ALONE}/32`] }, nudge: false }],
};
const EACH = 5;
const LIMIT_MS = 10_000;
/** Time between two requests of a client. */
const PAUSE_MS = 50;

let clean: (() => unknown)[] = [];
afterEach(async () => {
  for (const one of clean.reverse()) await one();
  clean = [];
});

/** A client of one connection that asks again and again until it is told to leave, or to stop. */
class Busy {
  answers = 0;
  told = false;
  /** What it was not answered whole. */
  readonly failures: string[] = [];
  readonly ended: Promise<void>;
  readonly socket: net.Socket;
  #stopped = false;
  readonly #conditions = new Conditions();

  /** @param ask false: it was told to leave with the answer; rejects when the answer did not come whole */
  constructor(socket: net.Socket, ask: () => Promise<boolean>) {
    this.socket = socket;
    this.ended = this.#run(ask);
  }

  async #run(ask: () => Promise<boolean>): Promise<void> {
    try {
      while (!this.#stopped && !this.told) {
        this.told = !(await ask());
        this.answers++;
        this.#conditions.changed();
        if (!this.told) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    } catch (error) {
      this.failures.push(String(error));
      this.#conditions.changed();
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.ended;
  }

  /** Resolves after so many more answers; rejects when it ended before. */
  async more(answers: number): Promise<void> {
    const wanted = this.answers + answers;
    await this.#conditions.until(`${wanted} answers`, () => {
      if (this.answers >= wanted) return true;
      if (this.told || this.failures.length > 0) throw new Error(`told: ${this.told}, ${this.failures.join()}`);
      return false;
    });
  }
}

async function connect(port: number, localAddress: string): Promise<net.Socket> {
  const socket = net.connect({ port, host: '127.0.0.1', localAddress });
  clean.push(() => socket.destroy());
  await once(socket, 'connect');
  return socket.on('error', () => {});
}

async function http1(port: number, from: string): Promise<Busy> {
  const socket = await connect(port, from);
  const connection = new Http1Connection(socket);
  return new Busy(socket, async () => {
    const { status, headers } = await connection.request('GET / HTTP/1.1\r\nhost: x\r\n\r\n', undefined, LIMIT_MS);
    expect(status).toBe(200);
    return headers.get('connection') !== 'close';
  });
}

async function h2(port: number, from: string): Promise<Busy> {
  const socket = await connect(port, from);
  const session = http2.connect(`http://127.0.0.1:${port}`, { createConnection: () => socket });
  session.on('error', () => {});
  let lastStreamId: number | undefined;
  session.on('goaway', (_code, last) => {
    lastStreamId = last;
  });
  return new Busy(socket, async () => {
    if (lastStreamId !== undefined) return false;
    const stream = session.request({ ':path': '/' });
    try {
      const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders];
      expect(headers[':status']).toBe(200);
      stream.resume();
      await once(stream, 'end');
    } catch (error) {
      // The library had queued it when GOAWAY came, and never sent it.
      if (!neverSent(stream, lastStreamId)) throw error;
    }
    return lastStreamId === undefined;
  });
}

async function crowd(port: number, from: string): Promise<Busy[]> {
  const all = Array.from({ length: EACH }, () => [http1(port, from), h2(port, from)]);
  const clients = await Promise.all(all.flat());
  for (const one of clients) clean.push(() => one.stop());
  await Promise.all(clients.map((one) => one.more(3)));
  return clients;
}

/** Those that are told are; the others are answered on, on the old epoch, until they end themselves. */
async function chosenOnly(told: readonly Busy[], alone: readonly Busy[]): Promise<void> {
  await Promise.all(told.map((one) => one.ended));
  expect(told.flatMap((one) => one.failures)).toEqual([]);
  expect(told.every((one) => one.told)).toBe(true);
  await Promise.all(alone.map((one) => one.more(20)));
  expect(alone.filter((one) => one.told)).toEqual([]);
}

/** Between two requests, so that none is lost. */
async function goAway(clients: readonly Busy[]): Promise<void> {
  await Promise.all(clients.map((one) => one.stop()));
  expect(clients.flatMap((one) => one.failures)).toEqual([]);
  for (const one of clients) one.socket.destroy();
}

test.each([
  ['1.37.0', '1.40.0'],
  ['1.40.0', '1.39.3'],
])('a rule that leaves some alone, by xDS, %s to %s: only the others are told', async (from, to) => {
  const mesh = await startMesh({ envoy: await envoyBinary(from) });
  clean.push(() => mesh.close());
  const { controller, port } = mesh;
  const [told, alone] = await Promise.all([crowd(port, TOLD), crowd(port, LEFT_ALONE)]);
  const upgrade = await controller.startUpgrade('edge', await envoyBinary(to), POLICY);
  await chosenOnly(told, alone);
  expect((await controller.upgrade(upgrade.id)).phase).toBe('Draining');
  await goAway(alone);
  const done = await controller.phase(upgrade.id, ['Done']);
  expect(done).toMatchObject({ connections: { cut: [] }, order: { via: 'xds' } });
});

test('the same for a lone agent, whose order goes by file', async () => {
  const block = await claimBlock();
  clean.push(() => block.release());
  const [port, upstreamPort] = [await block.port(), await block.port()];
  const upstream = http.createServer((_, response) => response.end('done\n'));
  upstream.keepAliveTimeout = 60_000; // or Envoy meets a connection of its pool that the upstream closed a moment ago
  await new Promise<void>((resolve) => upstream.listen(upstreamPort, '127.0.0.1', resolve));
  clean.push(() => upstream.close().closeAllConnections());
  const dir = path.join(block.dir, 'run');
  mkdirSync(dir);
  const bootstrap = path.join(block.dir, 'envoy.json');
  writeFileSync(bootstrap, JSON.stringify(staticBootstrap(port, upstreamPort)));
  const agent = await KeeperProcess.start({
    proxy: 'edge',
    dir,
    bootstrap,
    envoy: await envoyBinary('1.39.3'),
    baseId: block.baseId(),
    concurrency: 2,
    policy: POLICY,
  });
  clean.push(() => {
    agent.child.kill('SIGKILL');
    endEpochs(dir);
  });
  const [told, alone] = await Promise.all([crowd(port, TOLD), crowd(port, LEFT_ALONE)]);
  const answer = await agent.call('POST', '/v1/upgrade', { to: await envoyBinary('1.40.0') });
  expect(answer.body.ok, JSON.stringify(answer.body)).toBe(true);
  await chosenOnly(told, alone);
  await goAway(alone);
  await agent.line('old epoch reset');
});
