import { once } from 'node:events';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import path from 'node:path';
import type { CheckResult } from '@sluice/contract';
import { OWN_DRAIN_GUARDS } from '@sluice/contract/presets/index';
import { afterEach, expect, test } from 'vitest';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { endEpochs, KeeperProcess } from '../harness/keeper.ts';
import { claimBlock } from '../harness/ports.ts';
import { staticProxy } from '../harness/static-proxy.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const LIMIT_MS = 4_000;
const GRACE_MS = 300;

/** Envoy 1.40.0 with another number of the same length in its only place: `--version` and admin both say that one. */
async function relabelled(version: string, folder: string): Promise<string> {
  const bytes = readFileSync(await envoyBinary('1.40.0'));
  const at = bytes.indexOf('\x001.40.0\x00') + 1;
  expect(at).toBeGreaterThan(0);
  bytes.write(version, at, 'latin1');
  const file = path.join(folder, `envoy-${version}`);
  writeFileSync(file, bytes);
  chmodSync(file, 0o755);
  return file;
}

interface Held {
  /** One more answer on the same connection: whether it was told to leave with it. */
  ask(): Promise<boolean>;
  readonly ended: Promise<number>;
}

async function heldHttp1(port: number): Promise<Held> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  cleanups.push(() => agent.destroy());
  const ended = Promise.withResolvers<number>();
  const locals = new Set<number | undefined>();
  const ask = () =>
    new Promise<boolean>((resolve, reject) => {
      const call = http.get({ agent, port, host: '127.0.0.1' }, (response) => {
        const told = response.headers.connection === 'close';
        response.resume().on('end', () => resolve(told));
      });
      call.once('socket', (socket) => {
        socket.once('connect', () => locals.add(socket.localPort));
        socket.once('close', () => ended.resolve(Date.now()));
      });
      call.on('error', reject);
    });
  await ask();
  return {
    ask: async () => (await ask()) || locals.size > 1,
    ended: ended.promise,
  };
}

async function heldHttp2(port: number): Promise<Held> {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  cleanups.push(() => session.destroy());
  session.on('error', () => {});
  let told = false;
  session.on('goaway', () => {
    told = true;
  });
  const ended = once(session, 'close').then(() => Date.now());
  const ask = async () => {
    const stream = session.request({ ':path': '/' });
    await once(stream.resume().end(), 'end');
    return told;
  };
  await ask();
  return { ask, ended };
}

test('an old epoch of a version that nobody has looked at: nobody is told or closed before the limit, which cuts as policy says', async () => {
  const block = await claimBlock();
  cleanups.push(() => block.release());
  const arrived = Promise.withResolvers<void>();
  const proxy = await staticProxy(block, (request, response) => {
    if (request.url === '/held') arrived.resolve();
    else response.end('done\n');
  });
  const { port, dir } = proxy;
  cleanups.push(() => proxy.close());
  cleanups.push(() => endEpochs(dir));
  const agent = await KeeperProcess.start({
    proxy: 'edge',
    dir,
    bootstrap: proxy.bootstrap,
    envoy: await relabelled('1.41.0', block.dir),
    baseId: block.baseId(),
    concurrency: 2,
    policy: { http1: { silentIdleGraceMs: GRACE_MS }, maxDrainMs: LIMIT_MS, atDeadline: 'reset' },
  });
  cleanups.push(() => agent.child.kill('SIGKILL'));
  // What the binary carries is asked of the binary: it is 1.40.0 but for its number.
  const merged = readFileSync(path.join(dir, 'epochs', '0', 'bootstrap.json'), 'utf8');
  for (const guard of OWN_DRAIN_GUARDS) expect(merged).toContain(`"${guard}":false`);

  const clients = [await heldHttp1(port), await heldHttp2(port)];
  const cut = new Promise<string>((resolve) => {
    http.get({ port, host: '127.0.0.1', path: '/held' }).on('error', (error) => resolve(error.message));
  });
  await arrived.promise;

  const before = Date.now();
  const { body } = await agent.call('POST', '/v1/upgrade', { to: await envoyBinary('1.40.0') });
  expect(body.ok, JSON.stringify(body)).toBe(true);
  const levers = (body.checks as CheckResult[]).find(({ name }) => name === 'levers');
  expect(levers?.found).toMatch(/^warning: nobody has looked at Envoy 1\.41\.0 .*nobody is told to leave/);
  expect(await agent.line('connections are told to leave')).toMatchObject({
    mode: 'none',
    why: expect.stringContaining('1.41.0'),
  });
  expect((await agent.epochs()).map(({ version, state }) => [version, state])).toEqual([
    ['1.41.0', 'draining'],
    ['1.40.0', 'serving'],
  ]);
  await agent.line('verdict', ({ summary }) => String(summary).includes('no-lever'));
  for (const client of clients) expect(await client.ask()).toBe(false);

  // The silent ones too have lived until the limit, and the request that was on its way is named with what may be one.
  const ends = await Promise.all(clients.map(({ ended }) => ended));
  for (const end of ends) expect(end - before).toBeGreaterThanOrEqual(LIMIT_MS);
  expect((await agent.line('old epoch reset')).cut).toBeGreaterThanOrEqual(1);
  expect(await cut).toMatch(/hang up|ECONNRESET/);
});
