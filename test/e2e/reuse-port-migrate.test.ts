import { execFileSync } from 'node:child_process';
import { mkdirSync, readlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { CheckResult } from '@sluice/contract';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ConnectCounts } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { endEpochs, KeeperProcess } from '../harness/keeper.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { type Child, start, until } from '../harness/process.ts';
import { staticBootstrap } from '../harness/static-bootstrap.ts';

/**
 * The method without steering, in a network namespace of its own, where the kernel refuses each program for a group of
 * sockets: the most that it may take (net.core.optmem_max, one per namespace since Linux 6.8) is less than the smallest has.
 */
const SMALLEST = 'echo 64 > /proc/sys/net/core/optmem_max';
const able = attempt(() => execFileSync('unshare', ['-n', 'sh', '-c', `ip link set lo up && ${SMALLEST}`]));
const PORT = 8_080;

let block: Block;
let dir: string;
let network: Child;
let keeper: KeeperProcess | undefined;
let load: Child | undefined;

beforeEach(async () => {
  block = await claimBlock();
  dir = path.join(block.dir, 'run');
  mkdirSync(dir);
  network = await start('unshare', ['-n', 'sleep', '300'], { name: 'network' });
  const own = readlinkSync('/proc/self/ns/net');
  await until('a network namespace', () => (readlinkSync(`/proc/${network.pid}/ns/net`) === own ? undefined : true));
  inNetwork(`ip link set lo up && ${SMALLEST}`);
});

afterEach(async () => {
  load?.kill('SIGKILL');
  keeper?.child.kill('SIGKILL');
  endEpochs(dir);
  network.kill('SIGKILL');
  await block.release();
});

function within(): string[] {
  return ['nsenter', '-t', String(network.pid), '-n', '--'];
}

function inNetwork(script: string): string {
  const [command = '', ...args] = within();
  return execFileSync(command, [...args, 'sh', '-c', script], { encoding: 'utf8' });
}

function migrate(on: 0 | 1): void {
  inNetwork(`echo ${on} > /proc/sys/net/ipv4/tcp_migrate_req`);
}

/** Envoy answers by itself: this is about its listen sockets. */
async function startKeeper(version: string): Promise<KeeperProcess> {
  const bootstrap = path.join(block.dir, 'envoy.json');
  const value = staticBootstrap(PORT, 1) as { static_resources: { listeners: [Listener] } };
  const hcm = value.static_resources.listeners[0].filter_chains[0].filters[0].typed_config;
  const itself = { status: 200, body: { inline_string: 'done\n' } };
  const routes = [{ match: { prefix: '/' }, direct_response: itself }];
  hcm.route_config.virtual_hosts = [{ name: 'all', domains: ['*'], routes }];
  writeFileSync(bootstrap, JSON.stringify(value));
  const config = {
    proxy: 'edge',
    dir,
    bootstrap,
    envoy: await envoyBinary(version),
    baseId: block.baseId(),
    concurrency: 2,
    hotRestart: false,
    policy: { http1: { silentIdleGraceMs: 1_000 } },
  };
  return KeeperProcess.start(config, within());
}

interface Listener {
  filter_chains: [{ filters: [{ typed_config: { route_config: { virtual_hosts: unknown } } }] }];
}

/** New connections from inside; `stop` resolves with what became of them. */
async function newConnectionsInside(perSecond: number) {
  const main = path.join(import.meta.dirname, '../harness/connects-main.ts');
  const [command = '', ...args] = within();
  let answered = 0;
  let counts: ConnectCounts | undefined;
  const inside = [...args, process.execPath, '--conditions=sluice-source', main, String(PORT), String(perSecond)];
  const child = await start(command, inside, {
    name: 'load',
    ready: /^answered/,
    onLine: (line) => {
      if (line.startsWith('answered ')) answered = Number(line.slice(9));
      if (line.startsWith('counts ')) counts = JSON.parse(line.slice(7));
    },
  });
  load = child;
  return {
    async answers(more: number) {
      const wanted = answered + more;
      await until(`${wanted} answers`, () => (answered >= wanted ? true : undefined));
    },
    async stop() {
      child.kill('SIGTERM');
      await child.ended;
      return counts;
    },
  };
}

describe.runIf(able)('where new connections can not be steered', () => {
  const check = (body: Record<string, unknown>, name: string) =>
    (body.checks as CheckResult[]).find((one) => one.name === name);

  test('a kernel that migrates what waits: each of three handovers loses and refuses nothing', async () => {
    migrate(1);
    const agent = await startKeeper('1.39.3');
    keeper = agent;
    const traffic = await newConnectionsInside(800);
    for (const [i, version] of ['1.40.0', '1.36.4', '1.40.0'].entries()) {
      const answer = await agent.call('POST', '/v1/upgrade', { to: await envoyBinary(version) });
      expect(answer.body.ok, JSON.stringify(answer.body)).toBe(true);
      expect(check(answer.body, 'steering')?.found).toMatch(/^not possible \(.*ENOMEM.*\), nor needed/);
      expect(check(answer.body, 'net.ipv4.tcp_migrate_req')?.found).toMatch(/^1:/);
      expect(await agent.line('new epoch serves', (l) => l.epoch === i + 1)).toMatchObject({ method: 'reuse-port' });
      expect(agent.lines.filter(({ message }) => message === 'new connections are not steered')).toHaveLength(i + 1);
      await agent.line('old epoch reset', (l) => l.epoch === i && l.cut === 0);
      await traffic.answers(400);
    }
    const counts = await traffic.stop();
    expect(counts, counts?.failures.slice(0, 3).join('; ')).toMatchObject({ refused: 0, lost: 0 });
    expect(counts?.answered).toBeGreaterThan(1_200);
    expect(agent.lines.filter(({ level }) => level === 'error')).toEqual([]);
  });

  test('a kernel that does not: refused by name, and the old epoch serves on', async () => {
    migrate(0);
    const agent = await startKeeper('1.39.3');
    keeper = agent;
    const traffic = await newConnectionsInside(200);
    const { body } = await agent.call('POST', '/v1/upgrade', { to: await envoyBinary('1.40.0') });
    expect(body.ok).toBe(false);
    expect(check(body, 'steering')).toMatchObject({ ok: false, code: 'SLUICE_PREFLIGHT_STEERING' });
    expect(check(body, 'net.ipv4.tcp_migrate_req')?.found).toMatch(/^0:/);
    expect(await agent.epochs()).toMatchObject([{ epoch: 0, state: 'serving' }]);
    await traffic.answers(200);
    expect(await traffic.stop()).toMatchObject({ refused: 0, lost: 0 });
  });
});

function attempt(run: () => void): boolean {
  try {
    run();
    return true;
  } catch {
    console.log('no network namespace with limits of its own here: handing over without steering is not tested');
    return false;
  }
}
