import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { takeLock } from '@sluice/agent/handoff/lock';
import { findPeer } from '@sluice/agent/handoff/peer';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { held } from '../harness/held-request.ts';
import { endEpochs, KeeperProcess } from '../harness/keeper.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { probeStatus } from '../harness/probes.ts';
import { until } from '../harness/process.ts';
import { quicBootstrap } from '../harness/quic-bootstrap.ts';
import { staticBootstrap } from '../harness/static-bootstrap.ts';
import { type StaticProxy, staticProxy } from '../harness/static-proxy.ts';

let block: Block;
let proxy: StaticProxy;
let port: number;
let base: Record<string, unknown>;
const started: { keeper: KeeperProcess; dir: string }[] = [];

beforeEach(async () => {
  block = await claimBlock();
  // Not before the whole request is there.
  proxy = await staticProxy(block, (request, response) => request.resume().on('end', () => response.end('done\n')));
  port = proxy.port;
  const shared = path.join(block.dir, 'shared');
  mkdirSync(shared);
  base = {
    proxy: 'edge',
    bootstrap: proxy.bootstrap,
    shared,
    baseId: block.baseId(),
    concurrency: 2,
    policy: { http1: { silentIdleGraceMs: 1_000 } },
  };
});

afterEach(async () => {
  for (const { keeper, dir } of started.splice(0)) {
    keeper.child.kill('SIGKILL');
    endEpochs(dir);
  }
  proxy.close();
  await block.release();
});

async function agent(name: string, slot: string, version: string): Promise<KeeperProcess> {
  const dir = path.join(block.dir, name);
  mkdirSync(dir, { recursive: true });
  const keeper = await KeeperProcess.start({ ...base, dir, slot, envoy: await envoyBinary(version) });
  started.push({ keeper, dir });
  return keeper;
}

test('two slots flip twice: each new agent takes over from the other, nothing is lost, the old one empties', async () => {
  const statusPort = await block.port();
  base.statusAddress = `127.0.0.1:${statusPort}`;
  const one = await agent('one', '1', '1.38.3');
  const load = newConnections(port, 300);
  const probes = probeStatus(statusPort);
  const two = await agent('two', '2', '1.40.0');
  expect((await two.serving()).version).toBe('1.40.0');
  await one.line('old epoch reset');
  expect(await one.epochs()).toEqual([]);
  await one.line('status port given to the peer');
  // The container of slot 1 is replaced: a new agent with an empty folder.
  one.child.kill('SIGKILL');
  await one.child.ended;
  const three = await agent('three', '1', '1.39.3');
  await two.line('old epoch reset');
  const serving = await three.serving();
  expect([serving.epoch, serving.version]).toEqual([2, '1.39.3']);
  await two.line('status port given to the peer');
  two.child.kill('SIGTERM');
  await two.child.ended;
  expect(await probes.stop()).toMatchObject({
    failures: [],
    texts: ['epoch 0 of slot 1 serves', 'epoch 1 of slot 2 serves', 'epoch 2 of slot 1 serves'],
  });
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
});

test('the memory budget is the proxy’s: what lingers in the other slot counts', async () => {
  const one = await agent('one', '1', '1.40.0');
  const { pid } = await one.serving();
  const dear = await held(port);
  // Not its private pages: with no other process of its binary these are the binary's text as well, and shared soon.
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
  const oneMiB = Math.ceil(Number(/^Anonymous:\s+(\d+) kB/m.exec(rollup)?.[1]) / 1024);
  // Enough for one of them alone. Slot 1 has no budget: its epoch counts and is never given up.
  base.policy = { maxDrainMs: 0, atDeadline: 'reset', memory: { budgetMiB: Math.round(1.6 * oneMiB) } };
  const two = await agent('two', '2', '1.40.0');
  const cheap = await held(port);
  const answer = await two.call('POST', '/v1/upgrade', { to: await envoyBinary('1.40.0') });
  expect(answer.body).toMatchObject({ ok: true });
  expect(await two.line('over the memory budget: this epoch is given up')).toMatchObject({ epoch: 1, peer: [0] });
  expect(await two.line('old epoch reset', (line) => line.epoch === 1)).toMatchObject({ cut: 1 });
  expect((await one.epochs()).map(({ epoch, state }) => [epoch, state])).toEqual([[0, 'draining']]);
  dear.letGo();
  expect(await dear.status).toBe(200);
  expect(await cheap.status).toBe(0);
  dear.close();
  await one.line('old epoch reset');
});

test('two agents that start at once with nothing serving: one is first, the other takes over from it', async () => {
  const [one, two] = await Promise.all([agent('one', '1', '1.40.0'), agent('two', '2', '1.40.0')]);
  const roles = [one, two].map((a) => a.lines.find((l) => l.message === 'epoch negotiated')?.role);
  expect(roles.sort()).toEqual(['first', 'new']);
  await Promise.race([one.line('old epoch reset'), two.line('old epoch reset')]);
  const serving = [...(await one.epochs()), ...(await two.epochs())].filter((e) => e.state === 'serving');
  expect(serving).toHaveLength(1);
});

test('a second slot whose bootstrap Envoy refuses is refused before anything is touched', async () => {
  const one = await agent('one', '1', '1.40.0');
  const load = newConnections(port, 100);
  const bad = path.join(block.dir, 'bad.json');
  writeFileSync(bad, JSON.stringify({ static_resources: { listeners: [{ name: 'in', address: {} }] } }));
  const good = base.bootstrap;
  base.bootstrap = bad;
  await expect(agent('two', '2', '1.40.0')).rejects.toThrow(/PREFLIGHT_BOOTSTRAP|bootstrap: /);
  base.bootstrap = good;
  expect(one.lines.some((line) => line.message === 'the peer takes over')).toBe(false);
  const two = await agent('two', '2', '1.40.0');
  expect((await two.serving()).epoch).toBeGreaterThan(0);
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
});

/** The proxy's own, with a UDP listener. */
async function withUdp(): Promise<unknown> {
  const bootstrap = staticBootstrap(port, proxy.upstreamPort) as { static_resources: { listeners: unknown[] } };
  const type = (name: string) => `type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.${name}`;
  const route = { name: 'route', typed_config: { '@type': type('Route'), cluster: 'up' } };
  const udpProxy = { '@type': type('UdpProxyConfig'), stat_prefix: 'udp', matcher: { on_no_match: { action: route } } };
  bootstrap.static_resources.listeners.push({
    name: 'udp',
    address: { socket_address: { protocol: 'UDP', address: '127.0.0.1', port_value: await block.port() } },
    udp_listener_config: {},
    listener_filters: [{ name: 'proxy', typed_config: udpProxy }],
  });
  return bootstrap;
}

test.each([
  ['UDP', withUdp],
  ['QUIC', async () => quicBootstrap({ quic: await block.port(), tcp: port, upstream: proxy.upstreamPort })],
])(
  'a %s listener of the peer is refused by name: its packets can not be passed on between two agents yet',
  async (_, make) => {
    const good = base.bootstrap;
    base.bootstrap = path.join(block.dir, 'udp.json');
    writeFileSync(base.bootstrap as string, JSON.stringify(await make()));
    const one = await agent('one', '1', '1.40.0');
    base.bootstrap = good;
    const load = newConnections(port, 50);
    await expect(agent('two', '2', '1.40.0')).rejects.toThrow(/listens on .* by UDP or QUIC.*PREFLIGHT_UDP/s);
    expect((await one.serving()).epoch).toBe(0);
    expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  },
);

test('two agents that claim one slot: the second is refused by name, the first serves on', async () => {
  const one = await agent('one', '1', '1.40.0');
  await expect(agent('other', '1', '1.40.0')).rejects.toThrow(/SLOT_TAKEN|expected .*peer-1\.sock to be free/);
  await expect(agent('one', '1', '1.40.0')).rejects.toThrow(/SLOT_TAKEN|to be free/);
  expect((await one.serving()).epoch).toBe(0);
});

test('a take-over that meets an upgrade of the peer’s own comes after it: one line of epochs, nothing lost', async () => {
  const one = await agent('one', '1', '1.38.3');
  const load = newConnections(port, 100);
  await one.call('POST', '/v1/upgrade', { to: await envoyBinary('1.39.3') });
  const two = await agent('two', '2', '1.40.0');
  expect((await two.serving()).version).toBe('1.40.0');
  await one.line('the peer takes over', ({ step, serving }) => step === 'served' && serving === true);
  const left = (await one.epochs()).filter(({ state }) => state === 'serving' || state === 'starting');
  expect(left).toEqual([]);
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
});

test('a new container that is killed while it takes over: the next one takes over at once, and nothing is lost', async () => {
  const one = await agent('one', '1', '1.38.3');
  const load = newConnections(port, 100);
  const dying = agent('two', '2', '1.40.0').then(
    () => 'serves',
    () => 'dead',
  );
  await one.line('the peer takes over', ({ step }) => step === 'taking');
  // All of the container: the agent, whom the lock of its slot names, and its Envoy.
  const taken = await takeLock(base.shared as string, 'peer-2.sock').catch((error: Error) => error.message);
  process.kill(Number(/process (\d+)/.exec(String(taken))?.[1]), 'SIGKILL');
  expect(await dying).toBe('dead');
  endEpochs(path.join(block.dir, 'two'));
  const again = await agent('again', '2', '1.40.0');
  expect((await again.serving()).version).toBe('1.40.0');
  await one.line('old epoch reset');
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
});

test('the old Envoy crashes while the new agent takes over: it is not started again beside the new one', async () => {
  const one = await agent('one', '1', '1.39.3');
  const { pid } = await one.serving();
  const starting = agent('two', '2', '1.40.0');
  await one.line('the peer takes over', ({ step }) => step === 'taking');
  process.kill(pid, 'SIGKILL');
  const two = await starting;
  expect((await two.serving()).version).toBe('1.40.0');
  await one.line('the peer takes over', ({ step }) => step === 'served');
  // A task behind the relaunch: when it is refused, that one has been decided.
  await one.call('POST', '/v1/upgrade', { to: await envoyBinary('1.39.3') });
  await one.line('upgrade failed');
  expect((await one.epochs()).filter(({ state }) => state === 'serving')).toEqual([]);
  const load = newConnections(port, 100);
  expect((await two.call('GET', '/v1/wait')).body).toMatchObject({ state: 'serving' });
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
});

test('an old version that crashes and crashes: the new agent serves in its place, and it is not started again beside it', async () => {
  const good = base.bootstrap as string;
  const breaks = path.join(block.dir, 'breaks.json');
  copyFileSync(good, breaks);
  base.bootstrap = breaks;
  const one = await agent('one', '1', '1.39.3');
  writeFileSync(breaks, '{ "none": 1 }');
  process.kill((await one.serving()).pid, 'SIGKILL');
  await one.line('relaunch did not serve');
  Object.assign(base, { bootstrap: good, peerWaitMs: 500 });
  const two = await agent('two', '2', '1.40.0');
  expect((await two.serving()).version).toBe('1.40.0');
  await one.line('the peer takes over', ({ step }) => step === 'served');
  const load = newConnections(port, 100);
  // Its tries would go on for minutes.
  const busy = async () => (await findPeer(base.shared as string, '2'))?.state.busy;
  await until('the end of the relaunch', async () => ((await busy()) === false ? true : undefined), {
    limitMs: 60_000,
  });
  expect((await one.epochs()).filter(({ state }) => state === 'serving')).toEqual([]);
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
});
