import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { probe } from '@sluice/agent/binaries/probe';
import {
  absorbReplies,
  clearInitializing,
  ensureSharedMemory,
  type Handover,
  type HandoverEvent,
  KeptSockets,
  type Party,
  playParent,
  readInitializingFlag,
  relayHandover,
  syncKept,
} from '@sluice/agent/broker/index';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { envoyBinaries } from '../harness/envoy-bin.ts';
import { type Block, claimBlock } from '../harness/ports.ts';

/** From the cache, or had there first: not within a test's time. */
const ENVOYS = await envoyBinaries(['1.36.4', '1.38.3', '1.39.3', '1.40.0']);

interface Epoch {
  readonly party: Party & { readonly pid: number };
  readonly process: ChildProcess;
  readonly exited: Promise<unknown>;
}

let block: Block;
let folder: string;
let port: number;
let baseId: number;
let kept: KeptSockets;
let epochs: Epoch[];

beforeEach(async () => {
  block = await claimBlock();
  folder = block.dir;
  port = await block.port();
  baseId = block.baseId();
  kept = new KeptSockets();
  epochs = [];
  ensureSharedMemory(baseId);
});

afterEach(async () => {
  kept.closeAll();
  for (const epoch of epochs) epoch.process.kill('SIGKILL');
  await Promise.all(epochs.map((epoch) => epoch.exited));
  await block.release();
});

function binary(version: string): string {
  return ENVOYS[version] as string;
}

function partyOf(epoch: number): Party {
  return { epoch, socketPath: `@sluice-${baseId}-${epoch}` };
}

/** An Envoy that answers `epoch N` on the test's port. */
function launch(version: string, number: number): Epoch {
  const router = { '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router' };
  const manager = {
    '@type': 'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
    stat_prefix: 'in',
    route_config: {
      virtual_hosts: [
        {
          name: 'all',
          domains: ['*'],
          routes: [
            {
              match: { prefix: '/' },
              direct_response: { status: 200, body: { inline_string: `epoch ${number}\n` } },
            },
          ],
        },
      ],
    },
    http_filters: [{ name: 'router', typed_config: router }],
  };
  const listener = {
    name: 'in',
    address: { socket_address: { address: '127.0.0.1', port_value: port } },
    filter_chains: [{ filters: [{ name: 'http', typed_config: manager }] }],
  };
  const bootstrap = {
    admin: { address: { pipe: { path: join(folder, `admin-${number}.sock`) } } },
    static_resources: { listeners: [listener] },
  };
  const config = join(folder, `bootstrap-${number}.json`);
  writeFileSync(config, JSON.stringify(bootstrap));
  const { socketPath } = partyOf(number);
  const log = openSync(join(folder, `envoy-${number}.log`), 'a');
  const flags = ['--base-id', baseId, '--restart-epoch', number, '--socket-path', socketPath, '--concurrency', 2];
  const times = ['--parent-shutdown-time-s', 2, '--drain-time-s', 5];
  const args = ['-c', config, ...flags, ...times].map(String);
  const child = spawn(binary(version), args, { stdio: ['ignore', log, log] });
  const epoch = { party: { ...partyOf(number), pid: child.pid! }, process: child, exited: once(child, 'exit') };
  epochs.push(epoch);
  return epoch;
}

async function kill(epoch: Epoch): Promise<void> {
  epoch.process.kill('SIGKILL');
  await epoch.exited;
}

/** Binds the names first, then launches, as the agent does; resolves when the new epoch serves. */
async function start(version: string, number: number, from?: Epoch): Promise<{ epoch: Epoch; handover: Handover }> {
  const common = { baseId, child: partyOf(number), kept, timeoutMs: 20_000 };
  const handover = await (from ? relayHandover({ ...common, parent: from.party }) : playParent(common));
  const epoch = launch(version, number);
  handover.watchChild(epoch.party.pid);
  await handover.drainRequested;
  return { epoch, handover };
}

const BODY = /^HTTP\/1\.1 200 [\s\S]*\r\n\r\n(epoch \d+)\n$/;

interface Tally {
  answered: number;
  refused: number;
  broken: number;
  readonly by: Map<string, number>;
}

/** `clients` loops of raw requests, each on a connection of its own; nothing is ever repeated. */
function load(clients = 8): { readonly tally: Tally; stop(): Promise<Tally>; answers(more: number): Promise<void> } {
  const tally: Tally = { answered: 0, refused: 0, broken: 0, by: new Map() };
  const waiting: { at: number; resolve: () => void }[] = [];
  let stopped = false;
  const one = () =>
    new Promise<void>((resolve) => {
      const socket = connect(port, '127.0.0.1');
      let text = '';
      let refused = false;
      socket.setEncoding('latin1');
      socket.on('connect', () => socket.write('GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n'));
      socket.on('data', (part: string) => {
        text += part;
        // Envoy keeps the connection open for its delayed close: the response is whole when its body is.
        if (BODY.test(text)) socket.destroy();
      });
      socket.on('error', (error: NodeJS.ErrnoException) => {
        refused = error.code === 'ECONNREFUSED';
      });
      socket.on('close', () => {
        const body = BODY.exec(text)?.[1];
        if (body !== undefined) {
          tally.answered++;
          tally.by.set(body, (tally.by.get(body) ?? 0) + 1);
        } else if (refused) tally.refused++;
        else tally.broken++;
        for (const each of waiting.filter(({ at }) => at <= tally.answered)) each.resolve();
        resolve();
      });
    });
  const loops = Array.from({ length: clients }, async () => {
    while (!stopped) await one();
  });
  return {
    tally,
    answers: (more) => new Promise((resolve) => waiting.push({ at: tally.answered + more, resolve })),
    async stop() {
      stopped = true;
      await Promise.all(loops);
      return tally;
    },
  };
}

test('a handover from 1.38.3 to 1.40.0 loses no request, and the two are independent after it', async () => {
  const { epoch: old, handover: first } = await start('1.38.3', 1);
  await first.independent;
  const clients = load();
  await clients.answers(500);
  const { epoch: next, handover } = await start('1.40.0', 2, old);
  await clients.answers(500);
  await handover.independent;
  await kill(old);
  await clients.answers(500);
  const { refused, broken, by } = await clients.stop();
  expect({ refused, broken }).toEqual({ refused: 0, broken: 0 });
  expect([...by.keys()]).toEqual(['epoch 1', 'epoch 2']);
  expect(handover.passed).toHaveLength(2);
  expect(handover.passed.every(({ given, by: from }) => given && from === 'parent')).toBe(true);
  expect(next.process.exitCode).toBeNull();
});

test('four epochs of four versions live at once, and the last one outlives the others', async () => {
  const clients: ReturnType<typeof load>[] = [];
  let serving: Epoch | undefined;
  for (const [i, version] of ['1.38.3', '1.40.0', '1.36.4', '1.39.3'].entries()) {
    // Epochs that are not consecutive: every name follows from its own side's number.
    const { epoch, handover } = await start(version, 5 * i + 1, serving);
    serving = epoch;
    if (clients.length === 0) clients.push(load());
    await handover.independent;
  }
  expect(epochs.map(({ process: { exitCode } }) => exitCode)).toEqual([null, null, null, null]);
  await Promise.all(epochs.slice(0, 3).map(kill));
  await clients[0]!.answers(500);
  const { refused, broken, by } = await clients[0]!.stop();
  expect({ refused, broken }).toEqual({ refused: 0, broken: 0 });
  expect([...by.keys()]).toEqual(['epoch 1', 'epoch 6', 'epoch 11', 'epoch 16']);
});

describe('with the listen sockets kept', () => {
  test.each(['pidfd', 'ask'] as const)(
    'no connection is refused when the serving Envoy is killed (%s)',
    async (method) => {
      const { epoch: first, handover } = await start('1.40.0', 1);
      await handover.independent;
      const synced = await syncKept(kept, {
        baseId,
        envoy: first.party,
        method,
        exclude: [`unix://${join(folder, 'admin-1.sock')}`],
      });
      expect(synced).toMatchObject({ method, kept: 2, added: 2 });
      const clients = load();
      await clients.answers(500);
      await kill(first);
      clearInitializing(baseId, [first.party.pid]);
      const { handover: second } = await start('1.40.0', 2);
      await clients.answers(500);
      await second.independent;
      const { refused, broken } = await clients.stop();
      expect(refused).toBe(0);
      // In flight on the killed one: at most one for each client.
      expect(broken).toBeLessThanOrEqual(8);
      expect(second.passed.map(({ given, by }) => ({ given, by }))).toEqual([
        { given: true, by: 'kept' },
        { given: true, by: 'kept' },
      ]);
    },
  );

  test('a child that is killed while starting leaves its parent serving, and the next one takes over', async () => {
    const { epoch: old, handover: first } = await start('1.38.3', 1);
    await first.independent;
    const clients = load();
    await clients.answers(200);
    let child: Epoch | undefined;
    const onEvent = ({ type }: HandoverEvent) => {
      if (type === 'connected') child?.process.kill('SIGKILL');
    };
    const handover = await relayHandover({ baseId, parent: old.party, child: partyOf(2), kept, onEvent });
    child = launch('1.40.0', 2);
    handover.watchChild(child.party.pid);
    await expect(handover.drainRequested).rejects.toMatchObject({ code: 'EPOCH_DIED' });
    await child.exited;
    expect(readInitializingFlag(baseId)).toBe(true);
    expect(clearInitializing(baseId, [child.party.pid])).toBe(true);
    await clients.answers(200);
    const { handover: again } = await start('1.40.0', 3, old);
    await again.independent;
    await clients.answers(200);
    const { refused, broken, by } = await clients.stop();
    expect({ refused, broken }).toEqual({ refused: 0, broken: 0 });
    expect([...by.keys()]).toEqual(['epoch 1', 'epoch 3']);
  });

  test('a child that is killed right after DrainListeners is replaced without a refused connection', async () => {
    const { epoch: old, handover: first } = await start('1.38.3', 1);
    await first.independent;
    const clients = load();
    await clients.answers(200);
    let child: Epoch | undefined;
    const onEvent = ({ type }: HandoverEvent) => {
      if (type === 'drainRequested') child?.process.kill('SIGKILL');
    };
    const handover = await relayHandover({ baseId, parent: old.party, child: partyOf(2), kept, onEvent });
    child = launch('1.40.0', 2);
    handover.watchChild(child.party.pid);
    await handover.drainRequested;
    await expect(handover.independent).rejects.toMatchObject({ code: 'EPOCH_DIED' });
    await child.exited;
    clearInitializing(baseId, [child.party.pid]);
    const { handover: again } = await start('1.40.0', 3);
    await clients.answers(500);
    await again.independent;
    const { refused, broken } = await clients.stop();
    expect(refused).toBe(0);
    expect(broken).toBeLessThanOrEqual(8);
    expect(old.process.exitCode).toBeNull();
  });

  test('a parent that is killed while its child starts is answered for by the kept sockets', async () => {
    const { epoch: old, handover: first } = await start('1.38.3', 1);
    await first.independent;
    const admin = `unix://${join(folder, 'admin-1.sock')}`;
    await syncKept(kept, { baseId, envoy: old.party, exclude: [admin] });
    const clients = load();
    await clients.answers(200);
    const onEvent = ({ type }: HandoverEvent) => {
      if (type === 'connected') old.process.kill('SIGKILL');
    };
    const handover = await relayHandover({ baseId, parent: old.party, child: partyOf(2), kept, onEvent });
    const child = launch('1.40.0', 2);
    handover.watchChild(child.party.pid);
    await handover.drainRequested;
    await clients.answers(500);
    await handover.independent;
    const { refused, broken } = await clients.stop();
    expect(refused).toBe(0);
    expect(broken).toBeLessThanOrEqual(8);
  });
});

test('with the broker answering ShutdownAdmin, the old epoch keeps its admin and its start time is passed on', async () => {
  const { epoch: old, handover: first } = await start('1.38.3', 1);
  await first.independent;
  const handover = await relayHandover({
    baseId,
    parent: old.party,
    child: partyOf(2),
    shutdownAdmin: 'answer',
    originalStartSeconds: 1_700_000_000,
  });
  const child = launch('1.40.0', 2);
  handover.watchChild(child.party.pid);
  await handover.independent;
  const info = async (epoch: number) => JSON.parse(await admin(epoch, '/server_info'));
  expect(await info(1)).toMatchObject({ state: 'LIVE' });
  const { uptime_all_epochs: uptime } = await info(2);
  expect(Math.abs(Date.now() / 1000 - 1_700_000_000 - Number.parseInt(uptime, 10))).toBeLessThan(60);
});

async function admin(epoch: number, path: string): Promise<string> {
  const socket = connect(join(folder, `admin-${epoch}.sock`));
  socket.write(`GET ${path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n`);
  let text = '';
  for await (const part of socket) text += part;
  return text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1);
}

/** A process that relays and is killed at this event; resolves when its names are bound. */
async function relayUntil(type: HandoverEvent['type'], parent: Party, child: Party) {
  const script = `
    import { relayHandover } from '@sluice/agent/broker/index';
    const [type, baseId, parent, child] = JSON.parse(process.argv[1]);
    const onEvent = (event) => event.type === type && setImmediate(() => process.kill(process.pid, 'SIGKILL'));
    await relayHandover({ baseId, parent, child, onEvent });
    process.stdout.write('bound');`;
  const args = ['--conditions=sluice-source', '--input-type=module', '-e', script];
  const agent = spawn(process.execPath, [...args, JSON.stringify([type, baseId, parent, child])], {
    stdio: ['ignore', 'pipe', 'inherit'],
    cwd: import.meta.dirname,
  });
  const exited = once(agent, 'exit');
  await once(agent.stdout!, 'data');
  return { exited };
}

test('a broker that is killed before the terminate request is followed by a successor that swallows it', async () => {
  const { epoch: old, handover: first } = await start('1.38.3', 1);
  await first.independent;
  const clients = load();
  const agent = await relayUntil('drainRequested', old.party, partyOf(2));
  const next = launch('1.40.0', 2);
  await agent.exited;
  const successor = await playParent({ baseId, child: next.party, kept });
  await successor.independent;
  await kill(old);
  await clients.answers(500);
  const { refused, broken } = await clients.stop();
  expect({ refused, broken }).toEqual({ refused: 0, broken: 0 });
  expect(next.process.exitCode).toBeNull();
});

test('an answer owed to a killed agent is taken in by its successor, and Envoy lives on', async () => {
  const { epoch: old, handover: first } = await start('1.40.0', 1);
  await first.independent;
  const agent = await relayUntil('connected', old.party, partyOf(2));
  // A debugger would be needed to end the agent between request and answer each time: stop Envoy for that moment.
  old.process.kill('SIGSTOP');
  const child = launch('1.40.0', 2);
  await agent.exited;
  await kill(child);
  old.process.kill('SIGCONT');
  clearInitializing(baseId, [child.party.pid]);
  expect(await absorbReplies({ baseId, envoy: old.party })).toBe(1);
  const { handover } = await start('1.40.0', 3, old);
  await handover.independent;
});

test('every cached Envoy speaks a protocol that is known', async () => {
  for (const version of Object.keys(ENVOYS)) {
    expect(await probe(binary(version))).toMatchObject({ hotRestartVersion: '11.104', wire: 'known' });
  }
  await expect(probe('/bin/true')).rejects.toMatchObject({ code: 'PREFLIGHT_BINARY' });
});
