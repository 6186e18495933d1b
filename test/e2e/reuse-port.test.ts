import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { sharedMemoryPath } from '@sluice/agent/broker/shared-memory';
import { epochFolders } from '@sluice/agent/epochs/folder';
import { listenFds } from '@sluice/agent/native/listeners';
import { TCP_LISTEN, tcpTable } from '@sluice/agent/native/tcp-table';
import type { CheckResult } from '@sluice/contract';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { killAtOnce, lostAfter, newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { HeldClients } from '../harness/held.ts';
import { endEpochs, KeeperProcess } from '../harness/keeper.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { until } from '../harness/process.ts';
import { quicBootstrap } from '../harness/quic-bootstrap.ts';
import { staticBootstrap } from '../harness/static-bootstrap.ts';

let block: Block;
let upstream: http.Server;
let ports: [http: number, six: number];
let upstreamPort: number;
let dir: string;
let keepers: KeeperProcess[];
let loads: { stop(): Promise<unknown> }[];
let config: { dir: string } & Record<string, unknown>;

beforeEach(async () => {
  block = await claimBlock();
  ports = [await block.port(), await block.port()];
  upstreamPort = await block.port();
  keepers = [];
  loads = [];
  upstream = http.createServer((_, response) => response.end('done\n'));
  upstream.keepAliveTimeout = 60_000; // or Envoy meets a connection of its pool that the upstream closed a moment ago
  await new Promise<void>((resolve) => upstream.listen(upstreamPort, '127.0.0.1', resolve));
  dir = path.join(block.dir, 'run');
  mkdirSync(dir);
  config = {
    proxy: 'edge',
    dir,
    bootstrap: write('envoy.json', bootstrap()),
    envoy: await envoyBinary('1.39.3'),
    baseId: block.baseId(),
    concurrency: 2,
    hotRestart: false,
    // Longer than a connection must have lived to be told (two seconds), or a young idle one is closed before its GOAWAY.
    policy: { http1: { silentIdleGraceMs: 3_000 } },
  };
});

afterEach(async () => {
  for (const { stop } of loads) void stop(); // one that a failed test left
  for (const keeper of keepers) keeper.child.kill('SIGKILL');
  endEpochs(dir);
  for (const folder of epochFolders(path.join(dir, 'epochs'))) {
    const meta = folder.readMeta();
    if (meta) rmSync(sharedMemoryPath(meta.baseId), { force: true });
  }
  upstream.closeAllConnections();
  upstream.close();
  await block.release();
});

interface HttpListener {
  filter_chains: [{ filters: [{ typed_config: { route_config: { virtual_hosts: unknown } } }] }];
}

interface Listener {
  name: string;
  address: unknown;
  enable_reuse_port?: boolean;
}

/**
 * Listens on an IPv4 and on an IPv6 address. Envoy answers by itself: these tests are about its listen sockets, and an
 * upstream in the process that makes the load is the first to be short of breath on a busy machine (its accept queue of
 * 4,096 overflowed, and Envoy answered 503). `/up` goes to the upstream.
 */
function bootstrap(change: (listeners: Listener[]) => void = () => {}): unknown {
  const value = staticBootstrap(ports[0], upstreamPort) as { static_resources: { listeners: Listener[] } };
  const { listeners } = value.static_resources;
  const itself = { status: 200, body: { inline_string: 'done\n' } };
  const routes = [
    { match: { prefix: '/up' }, route: { cluster: 'up' } },
    { match: { prefix: '/' }, direct_response: itself },
  ];
  const hcm = (listeners[0] as unknown as HttpListener).filter_chains[0].filters[0].typed_config;
  hcm.route_config.virtual_hosts = [{ name: 'all', domains: ['*'], routes }];
  const six = { socket_address: { address: '::1', port_value: ports[1] } };
  listeners.push({ ...(listeners[0] as Listener), name: 'six', address: six });
  change(listeners);
  return value;
}

function write(name: string, value: unknown): string {
  const file = path.join(block.dir, name);
  writeFileSync(file, JSON.stringify(value));
  return file;
}

async function keeper(change: Record<string, unknown> = {}): Promise<KeeperProcess> {
  const started = await KeeperProcess.start({ ...config, ...change });
  keepers.push(started);
  return started;
}

async function upgrade(agent: KeeperProcess, body: Record<string, unknown>): Promise<void> {
  const answer = await agent.call('POST', '/v1/upgrade', body);
  expect(answer.body.ok, JSON.stringify(answer.body)).toBe(true);
}

/** Load on every address; `stop` expects that nothing failed. */
function load(perSecond = 400) {
  const all = [newConnections(ports[0], perSecond), newConnections(ports[1], perSecond, '::1')];
  loads.push(...all);
  return {
    answered: () => Math.min(...all.map(({ counts }) => counts.answered)),
    async stop() {
      for (const { stop } of all) {
        const counts = await stop();
        expect(counts, counts.failures.slice(0, 3).join('; ')).toMatchObject({ refused: 0, lost: 0 });
        expect(counts.answered).toBeGreaterThan(0);
      }
    },
  };
}

/** TCP addresses that a process listens on, one entry for each socket. */
function listens(pid: number): string[] {
  return listenFds(pid)
    .map(({ address }) => address)
    .filter((address) => address.startsWith('tcp://'));
}

test('another version takes over without hot restart: nothing fails, old connections live on and drain by the order', async () => {
  const agent = await keeper();
  const traffic = load();
  const held = await HeldClients.open(ports[0]);
  const old = await agent.serving();
  await upgrade(agent, { to: await envoyBinary('1.40.0') });
  const serves = await agent.line('new epoch serves');
  expect(serves).toMatchObject({ method: 'reuse-port', epoch: 1 });
  expect(await agent.serving()).toMatchObject({ version: '1.40.0', method: 'reuse-port' });
  expect(listens(old.pid)).toEqual([]);
  // One for each address and worker.
  expect(listens((await agent.serving()).pid)).toHaveLength(4);
  await agent.line('old epoch reset', (l) => l.epoch === 0 && l.cut === 0);
  await held.goaway;
  await traffic.stop();
  held.close();
});

test('a connection with a request in flight stays with the old epoch until its answer is whole', async () => {
  upstream.removeAllListeners('request');
  let answer = () => {};
  upstream.on('request', (_, response) => {
    response.write('do');
    answer = () => response.end('ne\n');
  });
  const agent = await keeper();
  const socket = net.connect(ports[0], '127.0.0.1');
  let text = '';
  socket.setEncoding('latin1').on('data', (chunk: string) => {
    text += chunk;
  });
  socket.write('GET /up HTTP/1.1\r\nhost: x\r\n\r\n');
  await until('the answer has begun', () => (text.includes('do') ? true : undefined));
  await upgrade(agent, { to: await envoyBinary('1.40.0') });
  await agent.line('drain order applied');
  await agent.line('new epoch serves');
  answer();
  await until('the answer is whole', () => (text.includes('ne\n') ? true : undefined));
  await agent.line('old epoch reset', (l) => l.cut === 0);
  socket.destroy();
});

test('four epochs of four versions back to back, each without the other, under load', async () => {
  const agent = await keeper({ policy: { http1: { silentIdleGraceMs: 600_000 } } });
  const traffic = load();
  const silent: HeldClients[] = [];
  for (const [i, version] of ['1.40.0', '1.36.4', '1.38.3'].entries()) {
    silent.push(await HeldClients.open(ports[0])); // one that its epoch waits for
    await upgrade(agent, { to: await envoyBinary(version) });
    await agent.line('new epoch serves', (l) => l.epoch === i + 1);
  }
  const epochs = await agent.epochs();
  expect(epochs.map((e) => [e.version, e.state])).toEqual([
    ['1.39.3', 'draining'],
    ['1.40.0', 'draining'],
    ['1.36.4', 'draining'],
    ['1.38.3', 'serving'],
  ]);
  await traffic.stop();
  for (const clients of silent) clients.close();
});

test('another hot restart version falls to reuse-port by itself', async () => {
  const real = await envoyBinary('1.40.0');
  const other = path.join(block.dir, 'envoy-12.7');
  const script = `#!/bin/sh\n[ "$1" = --hot-restart-version ] && { echo 12.7; exit; }\nexec ${real} "$@"\n`;
  writeFileSync(other, script, { mode: 0o755 });
  const agent = await keeper({ hotRestart: true });
  const traffic = load();
  const answer = await agent.call('POST', '/v1/upgrade', { to: other });
  const checks = answer.body.checks as CheckResult[];
  expect(checks.find((c) => c.name === 'method')).toMatchObject({ ok: true });
  expect(checks.find((c) => c.name === 'method')?.found).toMatch(
    /^reuse-port: not hot-restart \(.*serving 11\.104, target 12\.7/,
  );
  expect(await agent.line('new epoch serves')).toMatchObject({ method: 'reuse-port' });
  // And back, on which side of it whatever is old.
  await agent.line('old epoch reset', (l) => l.epoch === 0);
  await upgrade(agent, { to: real });
  expect(await agent.line('new epoch serves', (l) => l.epoch === 2)).toMatchObject({ method: 'reuse-port' });
  // This one speaks what the broker knows: from here on hot restart is possible again.
  await agent.line('old epoch reset', (l) => l.epoch === 1);
  await upgrade(agent, { to: await envoyBinary('1.39.3') });
  expect(await agent.line('new epoch serves', (l) => l.epoch === 3)).toMatchObject({ method: 'hot-restart' });
  await traffic.stop();
});

test('what two Envoys can not share is refused by name before anything is touched', async () => {
  const agent = await keeper();
  const traffic = load();
  const to = await envoyBinary('1.40.0');
  const failures = async (value: unknown) => {
    const answer = await agent.call('POST', '/v1/upgrade', { to, bootstrap: write('other.json', value) });
    const failed = (answer.body.checks as CheckResult[]).filter((c) => !c.ok);
    return Object.fromEntries(failed.map((c) => [c.code, c.found]));
  };
  const exclusive = bootstrap(([first]) => {
    if (first) first.enable_reuse_port = false;
  });
  expect(await failures(exclusive)).toMatchObject({
    SLUICE_PREFLIGHT_LISTENER: 'listener in (enable_reuse_port: false)',
  });
  expect(await agent.epochs()).toMatchObject([{ epoch: 0, state: 'serving' }]);
  await traffic.stop();
});

test('a serving Envoy with what can not be shared is refused: a Unix socket, a socket for all workers, an admin port', async () => {
  const adminPort = await block.port();
  const pipe = path.join(block.dir, 'in.sock');
  const value = bootstrap((listeners) => {
    const first = listeners[0] as Listener;
    first.enable_reuse_port = false;
    listeners.push({ ...first, name: 'uds', address: { pipe: { path: pipe } } });
  }) as Record<string, unknown>;
  value.admin = { address: { socket_address: { address: '127.0.0.1', port_value: adminPort } } };
  const agent = await keeper({ bootstrap: write('envoy.json', value) });
  const answer = await agent.call('POST', '/v1/upgrade', { to: await envoyBinary('1.40.0') });
  const failed = (answer.body.checks as CheckResult[]).filter((c) => !c.ok);
  expect(failed.map((c) => c.code).sort()).toEqual([
    'SLUICE_PREFLIGHT_ADMIN',
    'SLUICE_PREFLIGHT_HOT_RESTART_OFF',
    'SLUICE_PREFLIGHT_LISTENER',
    'SLUICE_PREFLIGHT_METHOD',
  ]);
  const listener = failed.find((c) => c.code === 'SLUICE_PREFLIGHT_LISTENER');
  for (const part of [`unix://${pipe}`, `tcp://127.0.0.1:${ports[0]} (no reuse_port)`]) {
    expect(listener?.found).toContain(part);
  }
});

test.each([
  ['where hot restart is off', { hotRestart: false }, {}],
  ['where it is asked for by name', { hotRestart: true }, { method: 'reuse-port' }],
])('QUIC of the serving Envoy, or of the new bootstrap, is refused by name %s', async (_, change, wish) => {
  const quic = quicBootstrap({ quic: await block.port(), tcp: ports[0], upstream: upstreamPort });
  const plain = write('plain.json', staticBootstrap(ports[0], upstreamPort));
  const to = await envoyBinary('1.40.0');
  const failures = async (agent: KeeperProcess, target: Record<string, unknown>) => {
    const answer = await agent.call('POST', '/v1/upgrade', { to, ...wish, ...target });
    expect(answer.body.ok).toBe(false);
    const checks = answer.body.checks as CheckResult[];
    expect(checks.find((c) => c.name === 'method')).toMatchObject({ ok: false, code: 'SLUICE_PREFLIGHT_METHOD' });
    expect(await agent.epochs()).toMatchObject([{ epoch: 0, state: 'serving' }]);
    return checks.find((c) => c.name === 'method')?.found;
  };
  const agent = await keeper({ ...change, bootstrap: write('quic.json', quic) });
  const one = newConnections(ports[0], 50);
  loads.push(one);
  expect(await failures(agent, {})).toContain('no QUIC: listener quic, QUIC in the serving epoch');
  expect(await failures(agent, { bootstrap: plain })).toContain('no QUIC: QUIC in the serving epoch');
  expect(await one.stop()).toMatchObject({ refused: 0, lost: 0 });
});

test('a new epoch that dies before it serves got no connection, though it listened; the next upgrade works', async () => {
  const agent = await keeper();
  const traffic = load();
  const to = await envoyBinary('1.40.0');
  await upgrade(agent, { to });
  const young = await until('the new process', async () => (await agent.epochs()).find((e) => e.epoch === 1));
  // The agent stands still: what happens to connections now is the kernel's part.
  agent.child.kill('SIGSTOP');
  await until('it listens', () => (listens(young.pid).length === 4 ? true : undefined));
  const answered = traffic.answered();
  await until('traffic goes on', () => (traffic.answered() > answered + 300 ? true : undefined));
  process.kill(young.pid, 'SIGKILL');
  agent.child.kill('SIGCONT');
  await agent.line('upgrade failed');
  expect(await agent.serving()).toMatchObject({ epoch: 0, version: '1.39.3' });
  await upgrade(agent, { to });
  await agent.line('new epoch serves', (l) => l.epoch === 2);
  await traffic.stop();
});

const STEPS = ['steering: to the old epoch', 'steering: to the new epoch', 'steering: quiet'];

test.each(STEPS)('an agent killed at "%s" is succeeded, one epoch accepts, nothing fails', async (step) => {
  const first = await keeper();
  const traffic = load();
  await upgrade(first, { to: await envoyBinary('1.40.0') });
  await first.line(step);
  first.child.kill('SIGKILL');
  await first.child.ended;
  const second = await keeper();
  const serving = await second.serving();
  const answered = traffic.answered();
  await until('every address answers', () => (traffic.answered() > answered + 200 ? true : undefined));
  if (step === STEPS[0]) expect(serving).toMatchObject({ epoch: 0, version: '1.39.3' });
  const others = (await second.epochs()).filter((e) => e.epoch !== serving.epoch);
  for (const { pid } of others) expect(listens(pid)).toEqual([]);
  // Nor does a process that nobody knows of: one socket for each address and worker.
  expect(tcpTable(process.pid, { states: [TCP_LISTEN], ports })).toHaveLength(4);
  // Whichever serves, it can be upgraded from.
  await upgrade(second, { to: await envoyBinary('1.36.4') });
  await second.line('new epoch serves', (l) => l.method === 'reuse-port');
  await second.line('old epoch reset', (l) => l.epoch === serving.epoch);
  await traffic.stop();
});

test('an old epoch that does not answer before the change: the upgrade fails, and it serves on', async () => {
  const agent = await keeper();
  const traffic = load(50);
  const { pid } = await agent.serving();
  await upgrade(agent, { to: await envoyBinary('1.40.0') });
  await agent.line('steering: to the old epoch');
  process.kill(pid, 'SIGSTOP');
  await agent.line('upgrade failed');
  process.kill(pid, 'SIGCONT');
  expect(await agent.serving()).toMatchObject({ epoch: 0 });
  await traffic.stop();
});

test('an old epoch that does not answer after the change is steered around; the new one serves, nothing fails', async () => {
  const agent = await keeper({ policy: { http1: { silentIdleGraceMs: 5_000 } } });
  const traffic = load(50);
  const held = await HeldClients.open(ports[0]);
  const { pid } = await agent.serving();
  await upgrade(agent, { to: await envoyBinary('1.40.0') });
  await agent.line('steering: to the new epoch');
  process.kill(pid, 'SIGSTOP');
  // At once when it had stopped accepting already, else when its bounds are over.
  await agent.line('new epoch serves', () => true, 40_000);
  process.kill(pid, 'SIGCONT');
  const answered = traffic.answered();
  await until('the new one answers', () => (traffic.answered() > answered + 50 ? true : undefined));
  await agent.line('old epoch reset', (l) => l.epoch === 0);
  await traffic.stop();
  held.close();
});

test('a crash without hot restart refuses no connection: they come a second late', async () => {
  const agent = await keeper();
  const one = newConnections(ports[0], 500);
  loads.push(one);
  await until('load', () => (one.counts.answered > 300 ? true : undefined));
  const { pid } = await agent.serving();
  killAtOnce(pid);
  // What had connected until the agent heard of it is lost with the Envoy: it was in the queue that nobody will accept from.
  const { time } = await agent.line('kept sockets silent');
  const silentAt = Date.parse(String(time)) + 1 - performance.timeOrigin;
  await agent.line('relaunched');
  const answered = one.counts.answered;
  await until('it answers', () => (one.counts.answered > answered + 300 ? true : undefined));
  const counts = await one.stop();
  const { failures } = counts;
  const errors = failures.filter((failure) => !failure.startsWith('connected after'));
  expect(errors.filter((failure) => failure.includes('ECONNREFUSED'))).toEqual([]);
  // Nothing that came later.
  expect(lostAfter(counts, silentAt), errors.slice(0, 3).join('; ')).toBe(0);
});
