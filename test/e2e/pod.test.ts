import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { KeeperProcess } from '../harness/keeper.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { probeStatus } from '../harness/probes.ts';
import { staticBootstrap } from '../harness/static-bootstrap.ts';

/**
 * Two agents as two containers of a Pod: each in a PID and a mount namespace of its own, its agent the first process in it;
 * network, /dev/shm and the volume are what the Pod shares. Whatever is left out must be refused by name.
 */
const able = attempt(() => execFileSync('unshare', ['-p', '-f', '-m', '-i', '-n', '--mount-proc', 'true']));

let block: Block;
let upstream: http.Server;
let port: number;
let statusPort: number;
let shared: string;
let base: Record<string, unknown>;
const started: KeeperProcess[] = [];

beforeEach(async () => {
  block = await claimBlock();
  [port, statusPort] = [await block.port(), await block.port()];
  const upstreamPort = await block.port();
  upstream = http.createServer((_, response) => response.end('done\n'));
  upstream.keepAliveTimeout = 60_000;
  await new Promise<void>((resolve) => upstream.listen(upstreamPort, '127.0.0.1', resolve));
  const bootstrap = path.join(block.dir, 'envoy.json');
  writeFileSync(bootstrap, JSON.stringify(staticBootstrap(port, upstreamPort)));
  shared = path.join(block.dir, 'volume');
  mkdirSync(shared);
  base = {
    proxy: 'edge',
    bootstrap,
    shared,
    baseId: block.baseId(),
    concurrency: 2,
    statusAddress: `127.0.0.1:${statusPort}`,
    peerWaitMs: 3_000,
    policy: { http1: { silentIdleGraceMs: 1_000 } },
  };
});

afterEach(async () => {
  // The first process of a PID namespace takes all others with it.
  for (const keeper of started.splice(0)) {
    if (keeper.child.running) signalAgent(keeper, 'SIGKILL');
    await keeper.child.ended;
  }
  upstream.closeAllConnections();
  upstream.close();
  await block.release();
});

/** What a container of its own has; `more`: namespaces and mounts that a Pod would share. */
function container(more: { readonly flags?: readonly string[]; readonly mounts?: string } = {}): string[] {
  const flags = ['-p', '-f', '-m', '--mount-proc', '--kill-child=SIGKILL', ...(more.flags ?? [])];
  return ['unshare', ...flags, 'sh', '-c', `${more.mounts ?? ':'}; exec "$@"`, 'sh'];
}

async function agent(
  slot: string,
  version: string,
  within = container(),
  change: Record<string, unknown> = {},
): Promise<KeeperProcess> {
  const dir = path.join(shared, `slot-${slot}`);
  const keeper = await KeeperProcess.start(
    { ...base, dir, slot, envoy: await envoyBinary(version), ...change },
    within,
  );
  started.push(keeper);
  return keeper;
}

/** A signal to the agent itself, which is number 1 in there and another here. */
function signalAgent(keeper: KeeperProcess, signal: NodeJS.Signals): void {
  const children = readFileSync(`/proc/${keeper.child.pid}/task/${keeper.child.pid}/children`, 'utf8');
  const pid = Number(children.trim().split(' ')[0]);
  if (pid > 0) process.kill(pid, signal);
}

describe.runIf(able)('two containers of a Pod', () => {
  test('flip and flop: nothing is lost, no probe is refused, each old container ends with 0 by its own verdict', async () => {
    let old = await agent('1', '1.38.3');
    expect((await old.serving()).pid).toBeLessThan(1_000);
    const load = newConnections(port, 150);
    const probes = probeStatus(statusPort);
    for (const [slot, version] of [
      ['2', '1.40.0'],
      ['1', '1.39.3'],
      ['2', '1.40.0'],
    ] as const) {
      const next = await agent(slot, version);
      expect((await next.serving()).version).toBe(version);
      // The kubelet: first the hook, then SIGTERM.
      expect((await old.call('POST', '/v1/prestop')).body).toMatchObject({ end: 'held', peer: slot, cut: [] });
      signalAgent(old, 'SIGTERM');
      expect(await old.child.ended).toMatchObject({ code: 0 });
      old = next;
    }
    expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
    expect((await probes.stop()).failures).toEqual([]);
    const left = readdirSync('/dev/shm').filter((name) => name.includes(`_${base.baseId}0`));
    expect(left.length).toBeLessThanOrEqual(1);
  });

  test('a container that is killed with all in it starts again beside what it left in the volume', async () => {
    const one = await agent('1', '1.40.0');
    signalAgent(one, 'SIGKILL');
    await one.child.ended;
    const again = await agent('1', '1.40.0');
    expect((await again.epochs()).map(({ epoch, state }) => [epoch, state])).toEqual([[1, 'serving']]);
    const two = await agent('2', '1.39.3');
    expect((await two.serving()).epoch).toBe(2);
  });

  test('as the reference deployment secures them: user 1337, no capability, no new privileges, a read-only root', async () => {
    const envoys = path.join(block.dir, 'envoys');
    mkdirSync(envoys);
    const found = path.dirname(path.dirname(await envoyBinary('1.40.0')));
    execFileSync('chown', ['-R', '1337:1337', shared]);
    execFileSync('chmod', ['755', block.dir]);
    const mounts = [
      `mount --bind ${shared} ${shared}`,
      `mount --bind ${found} ${envoys}`,
      'mount -o remount,bind,ro /',
      'set -- setpriv --reuid=1337 --regid=1337 --clear-groups --bounding-set=-all --no-new-privs "$@"',
    ].join(' && ');
    const secured = (slot: string, version: string) =>
      agent(slot, version, container({ mounts }), { envoys, envoy: version });
    const one = await secured('1', '1.39.3');
    const load = newConnections(port, 100);
    const two = await secured('2', '1.40.0');
    expect((await two.serving()).version).toBe('1.40.0');
    expect((await one.call('POST', '/v1/prestop')).body).toMatchObject({ end: 'held', peer: '2', cut: [] });
    signalAgent(one, 'SIGTERM');
    expect(await one.child.ended).toMatchObject({ code: 0 });
    expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
    expect(two.lines.filter(({ level }) => level === 'error')).toEqual([]);
  });

  test.each([
    ['another network', { flags: ['-n'], mounts: 'ip link set lo up' }, /PREFLIGHT_NETWORK|one network namespace/],
    ['another /dev/shm', { flags: ['-i'], mounts: 'mount -t tmpfs shm /dev/shm' }, /one \/dev\/shm/],
  ])('%s is refused by name, and the first container serves on', async (_, more, refusal) => {
    const one = await agent('1', '1.40.0');
    const load = newConnections(port, 50);
    await expect(agent('2', '1.40.0', container(more))).rejects.toThrow(refusal);
    expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
    expect((await one.serving()).epoch).toBe(0);
  });

  test.each([
    ['', {}],
    [', also without a status port', { statusAddress: undefined }],
  ])('another volume is refused by name, for two that accept would share the connections%s', async (_, change) => {
    const one = await agent('1', '1.40.0');
    const load = newConnections(port, 50);
    // The same path as in the first container, and another folder behind it.
    const mounts = `mount -t tmpfs volume ${shared}`;
    const dir = path.join(block.dir, 'own');
    await expect(agent('2', '1.40.0', container({ mounts }), { dir, ...change })).rejects.toThrow(
      /expected the agent of the Envoy/,
    );
    expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
    expect((await one.serving()).epoch).toBe(0);
  });
});

function attempt(run: () => void): boolean {
  try {
    run();
    return true;
  } catch {
    console.log('no namespaces here (unshare): the tests of two containers are left out');
    return false;
  }
}
