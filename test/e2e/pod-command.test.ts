import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { endEpochs } from '../harness/keeper.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { type Child, start, until } from '../harness/process.ts';
import { staticBootstrap } from '../harness/static-bootstrap.ts';

/**
 * The command as a SidecarSet runs it: both containers have the same arguments and the same environment but for the version
 * pair and the name that the kubelet's mounts show (SLUICE_CONTAINER stands for them here).
 */
const CLI = path.join(import.meta.dirname, '../../cli/src/main.ts');

let block: Block;
let upstream: http.Server;
let port: number;
let common: Record<string, string>;
let word: string;
const running: Child[] = [];

beforeEach(async () => {
  block = await claimBlock();
  port = await block.port();
  const upstreamPort = await block.port();
  upstream = http.createServer((request, response) => {
    const delay = Number(new URL(request.url ?? '/', 'http://x').searchParams.get('delay') ?? 0);
    setTimeout(() => response.end('done\n'), delay);
  });
  upstream.keepAliveTimeout = 60_000;
  await new Promise<void>((resolve) => upstream.listen(upstreamPort, '127.0.0.1', resolve));
  const bootstrap = path.join(block.dir, 'envoy.json');
  writeFileSync(bootstrap, JSON.stringify(staticBootstrap(port, upstreamPort)));
  const shared = path.join(block.dir, 'uds');
  mkdirSync(shared);
  word = path.join(block.dir, 'termination-log');
  common = {
    SLUICE_PROXY: 'edge',
    SLUICE_SHARED: shared,
    SLUICE_BOOTSTRAP: bootstrap,
    SLUICE_BASE_ID: String(block.baseId()),
    SLUICE_CONCURRENCY: '2',
    SLUICE_TERMINATION_GRACE_S: '4',
    SLUICE_TERMINATION_LOG: word,
    SLUICE_PODINFO: path.join(block.dir, 'annotations'),
  };
});

afterEach(async () => {
  for (const child of running.splice(0)) child.kill('SIGKILL');
  for (const slot of ['1', '2']) endEpochs(path.join(common.SLUICE_SHARED as string, `slot-${slot}`));
  upstream.closeAllConnections();
  upstream.close();
  await block.release();
});

async function environment(container: string, version: string, pair: readonly [number, number]) {
  const [own, alt] = pair;
  return {
    ...process.env,
    ...common,
    SLUICE_CONTAINER: container,
    SLUICE_ENVOY: await envoyBinary(version),
    SIDECARSET_VERSION: String(own),
    SIDECARSET_VERSION_ALT: String(alt),
  };
}

interface Container {
  readonly child: Child;
  run(...args: string[]): Promise<{ exit: number; out: string; err: string }>;
}

async function container(name: string, version: string, pair: readonly [number, number]): Promise<Container> {
  const env = await environment(name, version, pair);
  const child = await start(process.execPath, ['--conditions=sluice-source', CLI, 'agent'], { name, env });
  running.push(child);
  return {
    child,
    run: (...args) =>
      new Promise((resolve) => {
        const words = ['--conditions=sluice-source', CLI, 'agent', ...args];
        execFile(process.execPath, words, { env, timeout: 60_000 }, (error, out, err) =>
          resolve({ exit: error === null ? 0 : Number(error.code ?? -1), out, err }),
        );
      }),
  };
}

function slowRequest(delay: number): Promise<string> {
  return new Promise((resolve) => {
    const url = `http://127.0.0.1:${port}/?delay=${delay}`;
    http
      .get(url, { agent: false }, (response) => {
        let text = '';
        response.on('data', (part) => {
          text += part;
        });
        response.on('end', () => resolve(text));
        response.on('error', (error) => resolve(error.message));
      })
      .on('error', (error) => resolve(error.message));
  });
}

test('hooks and signals as the kubelet gives them, by the command: wait, prestop, SIGTERM, twice', async () => {
  const one = await container('mesh-1', '1.38.3', [1, 0]);
  // The hook comes before its agent listens: nothing is asked twice, the agent's socket is the event.
  expect(await one.run('wait', '--timeout', '30s')).toMatchObject({
    exit: 0,
    out: expect.stringContaining('of slot 1 serves'),
  });
  const load = newConnections(port, 50);
  const two = await container('mesh-2', '1.40.0', [2, 1]);
  expect(await two.run('wait', '--timeout', '30s')).toMatchObject({
    exit: 0,
    out: 'epoch 1 (1.40.0) of slot 2 serves\n',
  });
  const first = await one.run('prestop');
  expect(first).toMatchObject({ exit: 0, out: 'nothing is left here: slot 2 serves\n' });
  expect(await one.run('wait')).toMatchObject({
    exit: 0,
    out: 'slot 1 does not serve: epoch 1 of slot 2 does\n',
  });
  one.child.kill('SIGTERM');
  expect(await one.child.ended).toMatchObject({ code: 0 });
  expect(await one.run('prestop')).toMatchObject({ exit: 0, out: 'no agent here: nothing to wait for\n' });

  // Back: what does not end within the grace is cut, and named where `kubectl describe` shows it.
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  const slow = slowRequest(30_000);
  await until('in flight', async () => {
    const { out } = await two.run('status', '-o', 'json');
    return out.includes('"serving"') ? true : undefined;
  });
  const three = await container('mesh-1', '1.39.3', [3, 2]);
  expect((await three.run('wait', '--timeout', '30s')).exit).toBe(0);
  const second = await two.run('prestop');
  expect(second.exit).toBe(10);
  expect(second.err).toContain('SLUICE_GRACE_TOO_SHORT');
  expect(second.err).toMatch(/cut were 127\.0\.0\.1:\d+ \(/);
  expect(await slow).not.toBe('done\n');
  two.child.kill('SIGTERM');
  expect(await two.child.ended).toMatchObject({ code: 10 });
  expect(readFileSync(word, 'utf8')).toContain('termination grace of 4 s');
});

test('the older of two stands by, and its hook returns at once; a hook without an agent is bounded', async () => {
  const two = await container('mesh-2', '1.40.0', [2, 0]);
  expect((await two.run('wait', '--timeout', '30s')).exit).toBe(0);
  const one = await container('mesh-1', '1.38.3', [1, 2]);
  expect(await one.run('wait', '--timeout', '30s')).toMatchObject({
    exit: 0,
    out: 'slot 1 stands by: slot 2 has the newer version\n',
  });
  one.child.kill('SIGTERM');
  expect(await one.child.ended).toMatchObject({ code: 0 });
  const late = await one.run('wait', '--timeout', '300ms');
  expect(late).toMatchObject({ exit: 9, err: expect.stringContaining('SLUICE_TIMEOUT') });
});

test('a Pod that is deleted in mid-upgrade: both containers drain, requests on either are answered', async () => {
  common.SLUICE_TERMINATION_GRACE_S = '30';
  const one = await container('mesh-1', '1.39.3', [1, 0]);
  expect((await one.run('wait', '--timeout', '30s')).exit).toBe(0);
  const old = slowRequest(6_000);
  const two = await container('mesh-2', '1.40.0', [2, 1]);
  expect((await two.run('wait', '--timeout', '30s')).exit).toBe(0);
  const fresh = slowRequest(3_000);
  await until('in flight', () => {
    const found = execFileSync('ss', ['-Htn', 'state', 'established', `( sport = :${port} )`], { encoding: 'utf8' });
    return found.trim().split('\n').length >= 2 ? true : undefined;
  });
  const hooks = Promise.all([one.run('prestop'), two.run('prestop')]);
  two.child.kill('SIGTERM');
  expect((await hooks).map(({ exit }) => exit)).toEqual([0, 0]);
  one.child.kill('SIGTERM');
  expect(await Promise.all([old, fresh])).toEqual(['done\n', 'done\n']);
  expect(await one.child.ended).toMatchObject({ code: 0 });
  expect(await two.child.ended).toMatchObject({ code: 0 });
});
