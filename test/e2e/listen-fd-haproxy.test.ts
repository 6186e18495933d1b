import { existsSync } from 'node:fs';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { isAlive, signal } from '@sluice/agent/epochs/proc';
import { CommandFolder, type CommandMeta } from '@sluice/agent/listen-fd/command/epoch';
import type { UpgradeView } from '@sluice/contract';
import { afterEach, expect } from 'vitest';
import type { UpgradeRecord } from '../../cli/src/lib/record.ts';
import { CliAgent } from '../harness/cli-agent.ts';
import { ControllerProcess } from '../harness/controller.ts';
import { dieAfterAccepting } from '../harness/half-transfer.ts';
import { type ConnectFailure, ConnectionLog } from '../harness/load/connections.ts';
import { Http1Client } from '../harness/load/http1.ts';
import { Http2Client } from '../harness/load/http2.ts';
import { reconcile } from '../harness/load/reconcile.ts';
import { TcpClient } from '../harness/load/session.ts';
import { until } from '../harness/process.ts';
import { sluice } from '../harness/sluice.ts';
import { TcpEcho } from '../harness/tcp-echo.ts';
import {
  agents,
  block,
  busy,
  closeRigs,
  controllers,
  epochsOf,
  haproxy,
  header,
  it,
  rig,
  upstream,
} from './haproxy-rig.ts';

afterEach(closeRigs);

it("A to B to A under load: every request is answered, a TCP session lives through both, each old one ends by the kernel's verdict", async () => {
  const { agent, ports, write, upgrade, epochs } = await rig();
  const a = path.join(block.dir, 'A.cfg');
  const b = await write('B');
  const failures: ConnectFailure[] = [];
  const log = new ConnectionLog((failure) => failures.push(failure));
  const to = (http: number) => ({ host: '127.0.0.1', http, tls: 0, tcp: ports.tcp });
  const clients = [
    new Http1Client(to(ports.http), { name: 'http1', connections: 12, rate: 200, maxDelayMs: 300 }),
    new Http1Client(to(ports.http), { name: 'http1-post', connections: 6, rate: 100, post: true, maxDelayMs: 300 }),
    new Http1Client(to(ports.http), { name: 'http1-fresh', connections: 12, rate: 300, fresh: true }),
    new Http2Client(to(ports.h2), { name: 'http2', sessions: 6, rate: 200, maxDelayMs: 300 }),
    new TcpClient(to(ports.http), 4, 1_500),
  ];
  for (const client of clients) client.start();
  const held = await TcpEcho.open(ports.tcp);
  const download = slowDownload(ports.http, 6_000);
  await busy(clients);
  const begun = Date.now();

  await upgrade(b);
  const second = await agent.line('new epoch serves', (line) => line.epoch === 1);
  expect(await header(ports.http)).toBe('B');
  await busy(clients);
  await held.echo('after the first');
  expect((await epochs()).map(({ epoch, state }) => `${epoch} ${state}`)).toEqual(['0 draining', '1 serving']);
  expect((await epochs())[0]?.verdict).toMatchObject({ safe: false, protected: expect.any(Number) });

  await upgrade(a);
  await agent.line('new epoch serves', (line) => line.epoch === 2);
  expect(await header(ports.http)).toBe('A');
  await agent.line('old epoch reset', (line) => line.epoch === 1);
  await busy(clients);
  await held.echo('after the second');
  // The first is held by this one session alone by now.
  expect((await epochs()).map(({ epoch, state }) => `${epoch} ${state}`)).toEqual(['0 draining', '2 serving']);
  expect(await download).toBe(70_000);
  const closing = Date.now();
  await held.close();
  const reset = await agent.line('old epoch reset', (line) => line.epoch === 0);
  const resetMs = Date.parse(String(reset.time)) - closing;
  await Promise.all(clients.map((client) => client.stop()));
  log.close();

  expect(reset.cut).toBe(0);
  expect(failures).toEqual([]);
  for (const { tally } of clients) expect(tally.failures, tally.name).toEqual([]);
  const seen = await upstream.seen();
  seen.delete('');
  for (const id of held.ids) seen.delete(id);
  expect(
    reconcile(
      clients.map(({ tally }) => tally),
      seen,
    ),
  ).toEqual([]);
  const sums = clients.map(({ tally }) => `${tally.name} ${tally.total} (${tally.refused.size} not sent)`);
  console.log(
    `listen-fd, HAProxy A>B>A: ${sums.join(', ')}; ${Date.now() - begun} ms, B served after ${second.ms} ms, reset ${resetMs} ms after the last connection ended`,
  );
});

it('a configuration that HAProxy refuses, and one whose process is not ready in time: A serves, untouched', async () => {
  const { agent, ports, write, upgrade, epochs } = await rig({ startTimeout: '1s' });
  const before = await epochs();
  const broken = await write('broken', { extra: 'frontend nonsense\n  bind nowhere\n' });
  await expect(upgrade(broken)).rejects.toThrow(/exit 6/);
  expect((await epochs()).map(({ pid }) => pid)).toEqual(before.map(({ pid }) => pid));

  // Never says READY=1.
  const silent = path.join(block.dir, 'silent');
  await writeFile(silent, '#!/bin/sh\ncase "$1" in -c|-v) exec /usr/bin/env true;; esac\nexec sleep 600\n');
  await chmod(silent, 0o755);
  await agent.sluice('agent', 'upgrade', '--to', silent);
  const failed = await agent.line('upgrade failed');
  expect(failed).toMatchObject({ code: 'EPOCH_TIMEOUT', error: expect.stringContaining('READY=1 within 1000 ms') });
  const hung = new CommandFolder(path.join(agent.dir, 'epochs'), 1).readMeta() as CommandMeta;
  expect(isAlive(hung)).toBe(false);
  expect((await epochs()).map(({ pid }) => pid)).toEqual(before.map(({ pid }) => pid));
  expect(await header(ports.http)).toBe('A');

  // Ends at once.
  const dying = path.join(block.dir, 'dying');
  await writeFile(dying, '#!/bin/sh\ncase "$1" in -c|-v) exec /usr/bin/env true;; esac\necho out of luck\nexit 1\n');
  await chmod(dying, 0o755);
  await agent.sluice('agent', 'upgrade', '--to', dying);
  expect(await agent.line('upgrade failed', ({ code }) => code === 'EPOCH_DIED')).toMatchObject({
    error: expect.stringContaining('out of luck'),
  });
  expect(await header(ports.http)).toBe('A');
});

it('an agent that is killed leaves HAProxy serving; its successor adopts it and upgrades; a crash is answered', async () => {
  const { agent, ports, config, write } = await rig();
  agent.child.kill();
  await agent.child.ended;
  expect(await header(ports.http)).toBe('A');
  const next = await CliAgent.start(config);
  agents.push(next);
  expect(await next.line('epoch adopted')).toMatchObject({ epoch: 0, state: 'serving' });
  await next.sluice('agent', 'upgrade', '--to', haproxy.binary as string, '--bootstrap', await write('B'));
  await next.line('old epoch reset', (line) => line.epoch === 0);
  expect(await header(ports.http)).toBe('B');

  const serving = new CommandFolder(path.join(next.dir, 'epochs'), 1).readMeta() as CommandMeta;
  signal(serving, 'SIGKILL');
  // Once its worker has ended too, with the connections that it had.
  await next.line('the serving epoch crashed');
  // Connections wait in the queue of the held socket.
  expect(await header(ports.http)).toBe('B');
  expect((await epochsOf(next)).map(({ epoch, state }) => `${epoch} ${state}`)).toEqual(['2 serving']);

  // The same upgrade's epoch a second time: what was before it is started.
  signal(new CommandFolder(path.join(next.dir, 'epochs'), 2).readMeta() as CommandMeta, 'SIGKILL');
  await next.line('started again', (line) => line.back === true);
  expect(await header(ports.http)).toBe('A');
});

it('through the controller: preflight, start, order, verdict, reset, rollback; what an override cuts is named', async () => {
  const { agent, ports, config, write } = await rig();
  agent.child.kill('SIGTERM');
  await agent.child.ended;
  const resources = path.join(block.dir, 'resources');
  await mkdir(resources);
  const controller = await ControllerProcess.start({
    apiPort: await block.port(),
    xdsPort: await block.port(),
    state: path.join(block.dir, 'state.db'),
    resources,
  });
  controllers.push(controller);
  const linked = await CliAgent.start({ ...config, controller: [controller.url] });
  agents.push(linked);
  await controller.linked('edge');
  const [a, b] = [path.join(block.dir, 'A.cfg'), await write('B')];
  const start = (bootstrap: string): Promise<UpgradeView> =>
    controller.call('POST', '/upgrades', { proxy: 'edge', to: haproxy.binary, bootstrap });

  const broken = await write('broken', { extra: 'frontend nonsense\n  bind nowhere\n' });
  const refused = await controller.phase((await start(broken)).id, ['Failed']);
  expect(JSON.stringify(refused)).toContain('PREFLIGHT_BOOTSTRAP');
  expect(await header(ports.http)).toBe('A');

  const done = await controller.phase((await start(b)).id, ['Done']);
  expect(done).toMatchObject({ method: 'listen-fd', order: { via: 'link' }, connections: { cut: [] } });
  expect(await header(ports.http)).toBe('B');

  // A session that would hold the old epoch for as long as it likes.
  const held = await TcpEcho.open(ports.tcp);
  const back = await start(a);
  const draining = await controller.phase(back.id, ['Draining']);
  expect(await header(ports.http)).toBe('A');
  await held.echo('on the old epoch');
  await expect(controller.call('POST', `/upgrades/${back.id}/reset`, {})).rejects.toThrow(/RESET_PROTECTED/);
  await controller.call('POST', `/upgrades/${draining.id}/reset`, { override: { by: 'test', reason: 'enough' } });
  const cut = await controller.phase(back.id, ['Done']);
  expect(cut.connections?.cut).toMatchObject([{ protocol: 'tcp', peer: held.local }]);

  const again = await TcpEcho.open(ports.tcp);
  const forth = await start(b);
  await controller.phase(forth.id, ['Draining']);
  await controller.call('POST', `/upgrades/${forth.id}/rollback`, {});
  await until('the configuration from before serves', async () =>
    (await header(ports.http)) === 'A' ? true : undefined,
  );
  await again.echo('two epochs ago');
  await again.close();
  await controller.phase(forth.id, ['RolledBack']);
  await until('one epoch is left', async () =>
    (await controller.proxy('edge')).epochs.length === 1 ? true : undefined,
  );
});

it('without a controller: an override is in the record with who gave it, what the end of the agent cuts with its reason', async () => {
  const { agent, ports, write, upgrade } = await rig({ terminationDrain: '500ms' });
  const record = async (): Promise<UpgradeRecord> =>
    JSON.parse((await sluice('', 'agent', 'record', '--dir', agent.dir, '--format', 'json')).out);
  const first = await TcpEcho.open(ports.tcp);
  await upgrade(await write('B'));
  await agent.line('new epoch serves', (line) => line.epoch === 1);
  await expect(agent.sluice('agent', 'reset', '--epoch', '0')).rejects.toThrow(/RESET_PROTECTED/);
  await agent.sluice('agent', 'reset', '--epoch', '0', '--override', '--reason', 'enough', '--by', 'kim');
  const overridden = await record();
  expect(overridden.upgrade).toMatchObject({ oldEpoch: 0, override: { by: 'kim', reason: 'enough' } });
  expect(overridden.upgrade.connections).not.toHaveProperty('why');
  const cut = overridden.ended.items.filter(({ how }) => how === 'cut');
  const said = { at: expect.any(Number), endsAt: expect.any(Number) };
  expect(cut).toMatchObject([{ connection: { peer: first.local }, estimate: { ...said, lateMs: expect.any(Number) } }]);
  expect(overridden.estimate).toMatchObject({ first: said, lateMs: expect.any(Number) });

  const second = await TcpEcho.open(ports.tcp);
  agent.child.kill('SIGTERM');
  await agent.child.ended;
  const terminated = await record();
  const { oldEpoch, override, connections } = terminated.upgrade;
  expect([oldEpoch, override, connections?.why]).toEqual([1, undefined, 'not drained within 500 ms']);
  expect(connections?.cut).toMatchObject([{ peer: second.local }]);
  const rows = (await sluice('', 'agent', 'record', '--dir', agent.dir, '--format', 'csv')).out.split('\r\n');
  expect(rows.find((row) => row.includes(second.local))?.includes(',termination,')).toBe(true);
});

it('two agents: the second takes the sockets over from the first, which drains and ends', async () => {
  const socket = () => path.join(block.dir, 'fd.sock');
  const { agent, ports, config, write } = await rig();
  // The first one of this test offers nothing: one that does.
  agent.child.kill('SIGTERM');
  await agent.child.ended;
  const command = { ...(config.command as object), socket: socket() };
  const first = await CliAgent.start({ ...config, dir: path.join(block.dir, 'one'), command });
  agents.push(first);
  const held = await TcpEcho.open(ports.tcp);
  const load = new Http1Client(
    { host: '127.0.0.1', http: ports.http, tls: 0, tcp: 0 },
    { name: 'http1', connections: 8, rate: 300, fresh: true },
  );
  load.start();
  await busy([load]);
  // One that can not serve changes nothing.
  const broken = await write('broken', { extra: 'frontend nonsense\n  bind nowhere\n' });
  const three = { ...config, dir: path.join(block.dir, 'three'), bootstrap: broken, command };
  await expect(CliAgent.start(three)).rejects.toThrow(/READY=1/);
  expect(await first.line('listen-fd: transfer not finished; this process accepts')).toMatchObject({
    code: 'EPOCH_DIED',
  });
  expect(await header(ports.http)).toBe('A');

  // One that dies after it said that it accepts: the first one accepts again, with another HAProxy.
  await dieAfterAccepting(socket());
  await until('it accepts again', async () => ((await epochsOf(first)).at(-1)?.epoch === 1 ? true : undefined));
  await busy([load]);

  const second = await CliAgent.start({ ...config, dir: path.join(block.dir, 'two'), command });
  agents.push(second);
  expect(await second.line('first epoch serves')).toMatchObject({ takenOver: true });
  await first.line('listen-fd: released');
  await busy([load]);
  await held.echo('through the first still');
  await held.close();
  expect(await first.child.ended).toEqual({ code: 0, signal: null });
  await busy([load]);
  await load.stop();
  expect(load.tally.failures).toEqual([]);
  expect(existsSync(socket())).toBe(true);
});

it('SIGHUP starts the same again; SIGTERM refuses new connections, lets the old ones end, and ends', async () => {
  const { agent, ports } = await rig();
  const pid = (await epochsOf(agent))[0]?.pid;
  agent.child.kill('SIGHUP');
  await agent.line('old epoch reset', (line) => line.epoch === 0);
  expect((await epochsOf(agent)).map(({ epoch, state }) => `${epoch} ${state}`)).toEqual(['1 serving']);
  expect((await epochsOf(agent))[0]?.pid).not.toBe(pid);
  const held = await TcpEcho.open(ports.tcp);
  agent.child.kill('SIGTERM');
  await until('new connections are refused', async () => ((await refused(ports.tcp)) ? true : undefined));
  await held.echo('while it ends');
  await held.close();
  expect(await agent.child.ended).toEqual({ code: 0, signal: null });
  expect(agent.lines.find((line) => line.message === 'old epoch reset' && line.epoch === 1)).toMatchObject({ cut: 0 });
});

function refused(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
    socket.once('connect', () => {
      socket.destroy();
      resolve(false);
    });
  });
}

/** A body spread over `ms`; resolves with its length. Rejects when it is cut. */
async function slowDownload(port: number, ms: number): Promise<number> {
  const response = await fetch(`http://127.0.0.1:${port}/echo?size=69999&slow=${ms}`);
  return (await response.arrayBuffer()).byteLength;
}
