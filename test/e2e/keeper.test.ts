import { writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { killAtOnce, lostAfter, newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { endEpochs, KeeperProcess } from '../harness/keeper.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { type StaticProxy, staticProxy } from '../harness/static-proxy.ts';

let block: Block;
let proxy: StaticProxy;
let port: number;
let dir: string;
let keepers: KeeperProcess[];
let config: { dir: string } & Record<string, unknown>;

beforeEach(async () => {
  block = await claimBlock();
  keepers = [];
  proxy = await staticProxy(block);
  ({ port, dir } = proxy);
  config = {
    proxy: 'edge',
    dir,
    bootstrap: proxy.bootstrap,
    envoy: await envoyBinary('1.38.3'),
    baseId: block.baseId(),
    concurrency: 2,
    policy: { http1: { silentIdleGraceMs: 1_000 } },
  };
});

afterEach(async () => {
  for (const keeper of keepers) keeper.child.kill('SIGKILL');
  endEpochs(dir);
  proxy.close();
  await block.release();
});

async function keeper(change: Record<string, unknown> = {}): Promise<KeeperProcess> {
  const started = await KeeperProcess.start({ ...config, ...change });
  keepers.push(started);
  return started;
}

test('an upgrade of a lone agent under load: nothing is lost, and the old epoch is reset', async () => {
  const agent = await keeper();
  const load = newConnections(port, 300);
  const answer = await agent.call('POST', '/v1/upgrade', { to: await envoyBinary('1.40.0') });
  expect(answer.body.ok, JSON.stringify(answer.body)).toBe(true);
  await agent.line('new epoch serves');
  await agent.line('old epoch reset');
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  const epochs = await agent.epochs();
  expect(epochs.map((e) => [e.epoch, e.version, e.state])).toEqual([[1, '1.40.0', 'serving']]);
});

test('a crash of the serving Envoy refuses no connection at 1,000 new ones a second', async () => {
  const agent = await keeper({ envoy: await envoyBinary('1.40.0') });
  const load = newConnections(port, 1_000);
  await load.answers(500);
  const { pid } = await agent.serving();
  const killedAt = killAtOnce(pid);
  await agent.line('relaunched');
  await load.answers(1_000);
  const counts = await load.stop();
  expect(counts.refused, counts.failures.slice(0, 3).join('; ')).toBe(0);
  // What was in flight on the killed one is lost, and counted. Nothing that came later is.
  expect(lostAfter(counts, killedAt), counts.failures.slice(0, 3).join('; ')).toBe(0);
  expect(counts.failures.filter((f) => f === 'no answer')).toEqual([]);
});

test('a new epoch killed before it serves leaves the old one serving, and the next upgrade works', async () => {
  const agent = await keeper();
  const load = newConnections(port, 1_000);
  await load.answers(200);
  const to = await envoyBinary('1.40.0');
  await agent.call('POST', '/v1/upgrade', { to });
  // It has found its parent and serves nothing yet.
  await agent.line('broker: hot restart: connected');
  const young = (await agent.epochs()).find((e) => e.epoch === 1);
  process.kill(young?.pid as number, 'SIGKILL');
  await agent.line('upgrade failed');
  expect(await agent.serving()).toMatchObject({ epoch: 0, version: '1.38.3' });
  const again = await agent.call('POST', '/v1/upgrade', { to });
  expect(again.body.ok, JSON.stringify(again.body)).toBe(true);
  await agent.line('new epoch serves', (l) => Number(l.epoch) >= 2);
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  expect((await agent.serving()).version).toBe('1.40.0');
});

test('a new epoch killed right after DrainListeners is relaunched on the kept sockets', async () => {
  const agent = await keeper();
  const load = newConnections(port, 1_000);
  await load.answers(200);
  await agent.call('POST', '/v1/upgrade', { to: await envoyBinary('1.40.0') });
  const serves = await agent.line('new epoch serves');
  const young = (await agent.epochs()).find((e) => e.epoch === serves.epoch);
  const killedAt = killAtOnce(young?.pid as number);
  await agent.line('relaunched');
  await load.answers(500);
  const counts = await load.stop();
  expect(counts.refused, counts.failures.slice(0, 3).join('; ')).toBe(0);
  // Only what was in flight on the killed one; nothing hangs in a socket that nobody accepts on.
  expect(lostAfter(counts, killedAt), counts.failures.slice(0, 3).join('; ')).toBe(0);
  expect(counts.failures.filter((f) => f === 'no answer')).toEqual([]);
  expect((await agent.serving()).version).toBe('1.40.0');
});

test('a killed agent leaves its epochs serving and draining; its successor adopts them and ends the drain', async () => {
  const first = await keeper({ policy: { http1: { silentIdleGraceMs: 4_000 } } });
  const load = newConnections(port, 200);
  const silent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  await new Promise<void>((resolve, reject) => {
    const call = http.get({ agent: silent, port, host: '127.0.0.1' }, (response) =>
      response.resume().on('end', resolve),
    );
    call.on('error', reject);
  });
  await first.call('POST', '/v1/upgrade', { to: await envoyBinary('1.40.0') });
  await first.line('drain order applied');
  first.child.kill('SIGKILL');
  await first.child.ended;
  const second = await keeper({ policy: { http1: { silentIdleGraceMs: 4_000 } } });
  const adopted = second.lines.filter((l) => l.message === 'epoch adopted').map((l) => [l.epoch, l.state]);
  expect(adopted).toEqual([
    [0, 'draining'],
    [1, 'serving'],
  ]);
  await second.line('old epoch reset');
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  silent.destroy();
});

test('two SIGHUPs 30 ms apart are two hot restarts, one after the other', async () => {
  const agent = await keeper({ envoy: await envoyBinary('1.40.0') });
  const load = newConnections(port, 300);
  agent.child.kill('SIGHUP');
  await new Promise((resolve) => setTimeout(resolve, 30));
  agent.child.kill('SIGHUP');
  await agent.line('new epoch serves', (l) => l.epoch === 1);
  await agent.line('new epoch serves', (l) => l.epoch === 2);
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
});

test('what can not be upgraded safely is refused by name before the old epoch is touched', async () => {
  const agent = await keeper();
  const load = newConnections(port, 300);
  const codes = async (body: unknown) => {
    const answer = await agent.call('POST', '/v1/upgrade', body);
    const checks = (answer.body.checks ?? []) as { ok: boolean; code?: string }[];
    return checks.filter((c) => !c.ok).map((c) => c.code);
  };
  const to = await envoyBinary('1.40.0');
  expect(await codes({ to: '/nowhere/envoy' })).toContain('SLUICE_PREFLIGHT_BINARY');
  const broken = path.join(block.dir, 'broken.json');
  writeFileSync(broken, JSON.stringify({ static_resources: { listeners: [{ name: 'l', addres: {} }] } }));
  expect(await codes({ to, bootstrap: broken })).toContain('SLUICE_PREFLIGHT_BOOTSTRAP');
  const other = path.join(block.dir, 'envoy-other');
  writeFileSync(
    other,
    '#!/bin/sh\ncase "$1" in --version) echo "x  version: 0a/9.9.9/Clean/RELEASE/B";; *) echo 12.7;; esac\n',
    { mode: 0o755 },
  );
  expect(await codes({ to: other, method: 'hot-restart' })).toContain('SLUICE_PREFLIGHT_HOT_RESTART_VERSION');
  expect((await agent.call('POST', '/v1/upgrade', { to, method: 'by-hand' })).body.code).toBe('SLUICE_INPUT_INVALID');
  const udp = path.join(block.dir, 'udp.json');
  const listener = {
    name: 'raw',
    address: { socket_address: { protocol: 'UDP', address: '127.0.0.1', port_value: port } },
  };
  writeFileSync(udp, JSON.stringify({ static_resources: { listeners: [{ ...listener, udp_listener_config: {} }] } }));
  expect(await codes({ to, bootstrap: udp })).toContain('SLUICE_PREFLIGHT_UDP');
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  expect(await agent.epochs()).toMatchObject([{ epoch: 0, state: 'serving' }]);
});
