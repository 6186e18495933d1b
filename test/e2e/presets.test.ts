import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net, { type AddressInfo } from 'node:net';
import path from 'node:path';
import { supportsLeave } from '@sluice/agent/binaries/leave-support';
import { supportsWasm } from '@sluice/agent/binaries/wasm-support';
import { writeAtomically } from '@sluice/agent/epochs/folder';
import { orderFile } from '@sluice/agent/epochs/order-file';
import { pressureForCutoff, writePressure } from '@sluice/agent/levers/pressure';
import { AdminConnection } from '@sluice/agent/witnesses/admin';
import { listenAddressesOf, readKernel } from '@sluice/agent/witnesses/kernel';
import {
  type Json,
  LEAVE_RESOURCE,
  leaves,
  leaveTypedConfig,
  noOpTypedConfig,
  ownDrainGuards,
  type PresetEnvironment,
  withBootstrapPresets,
} from '@sluice/contract/presets/index';
import { wasmPath } from '@sluice/wasm-filter';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { ENVOY_VERSIONS, envoyBinary } from '../harness/envoy-bin.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { type Child, start } from '../harness/process.ts';

const GOLDEN = path.join(import.meta.dirname, '../../contract/src/presets/testdata');
const DAY_MS = 86_400_000;

describe.each(ENVOY_VERSIONS)('the presets in Envoy %s', (version) => {
  let block: Block;
  let binary: string;
  let environment: PresetEnvironment;
  let envoy: Child;
  let admin: AdminConnection;
  let port: number;
  let listen: readonly string[];
  const upstream = http.createServer((request, response) => {
    request.resume().on('end', () => response.end('ok'));
  });
  const clients: { destroy(): void }[] = [];

  /** The golden input, on free ports. */
  const golden = async (name: string): Promise<Json> => {
    const { port: upstreamPort } = upstream.address() as AddressInfo;
    const ports: Record<string, number> = {
      10000: port,
      10001: upstreamPort,
      10002: upstreamPort,
      15000: await block.port(),
    };
    const text = readFileSync(path.join(GOLDEN, name), 'utf8')
      .replace(/(port_?value: )(\d+)/gi, (_, key: string, p: string) => `${key}${ports[p] ?? p}`)
      .replaceAll('/tmp/', `${block.dir}/`);
    return parse(text) as Json;
  };

  const validate = async (bootstrap: Json, name: string): Promise<{ code: number | null; said: string }> => {
    const file = path.join(block.dir, name);
    writeFileSync(file, JSON.stringify(bootstrap));
    const child = await start(binary, ['--mode', 'validate', '-c', file, '-l', 'error'], {});
    const { code } = await child.ended;
    return { code, said: child.tail };
  };

  beforeAll(async () => {
    block = await claimBlock();
    binary = await envoyBinary(version);
    upstream.on('upgrade', (_request, socket) => {
      socket
        .on('error', () => {})
        .write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n');
      socket.pipe(socket);
    });
    upstream.listen(0, '127.0.0.1');
    await once(upstream, 'listening');
    port = await block.port();
    environment = {
      proxy: 'edge-1',
      epoch: 3,
      slot: 'a',
      guards: ownDrainGuards(version) ?? [],
      ...((await supportsWasm(binary, wasmPath(), block.dir)) && { wasmPath: wasmPath() }),
      pressureFile: path.join(block.dir, 'pressure'),
      adminPipe: path.join(block.dir, 'admin.sock'),
      agentSocket: path.join(block.dir, 'agent.sock'),
      leave: await supportsLeave(binary),
      orderFile: path.join(block.dir, 'order.json'),
      leaveFile: path.join(block.dir, 'leave.json'),
    };
    writePressure(environment.pressureFile, 0);
    writePressure(path.join(block.dir, 'pressure.theirs'), 0);
    writeFileSync(environment.orderFile, orderFile(noOpTypedConfig()));
    writeFileSync(path.join(block.dir, 'leave.json'), orderFile(noOpTypedConfig(), LEAVE_RESOURCE));
    const file = path.join(block.dir, 'bootstrap.json');
    writeFileSync(file, JSON.stringify(withBootstrapPresets(await golden('plain.in.yaml'), environment).value));
    const args = ['-c', file, '--base-id', String(block.baseId()), '--concurrency', '2', '-l', 'info'];
    envoy = await start(binary, args, {
      log: path.join(block.dir, 'envoy.log'),
      ready: /starting main dispatch loop/,
      readyTimeoutMs: 20_000,
    });
    admin = new AdminConnection(environment.adminPipe);
    expect(await admin.ready()).toBe(true);
    listen = listenAddressesOf(envoy.pid).filter((a) => a !== environment.adminPipe);
  });

  afterEach(async () => {
    for (const client of clients.splice(0)) client.destroy();
    writePressure(environment.pressureFile, 0);
    // Envoy looks each 50 ms: a connection that comes before that would be closed by the last test's pressure.
    await expect.poll(() => stat('overload.sluice.pressure.pressure')).toBe(0);
  });

  afterAll(async () => {
    admin.close();
    await envoy.stop();
    upstream.close();
    upstream.closeAllConnections();
    await block.release();
  });

  const stat = async (name: string): Promise<number> => {
    const text = await admin.get(`/stats?filter=${encodeURIComponent(`^${name.replaceAll('.', '\\.')}$`)}`);
    return Number(/: (\d+)/.exec(text)?.[1] ?? Number.NaN);
  };

  const connectH2 = async (): Promise<{ session: http2.ClientHttp2Session; goaway: Promise<unknown> }> => {
    const session = http2.connect(`http://127.0.0.1:${port}`);
    session.on('error', () => {});
    clients.push(session);
    const goaway = once(session, 'goaway');
    const request = session.request({ ':path': '/' }).resume();
    request.end();
    await once(request, 'end');
    return { session, goaway };
  };

  const connectH1 = async () => {
    const socket = net.connect(port, '127.0.0.1').on('error', () => {});
    clients.push(socket);
    await once(socket, 'connect');
    let text = '';
    socket.on('data', (chunk) => (text += chunk.toString()));
    const ask = async (): Promise<string> => {
      text = '';
      socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
      while (!/\r\n\r\n(.*\r\n)?ok/s.test(text)) await once(socket, 'data');
      return text;
    };
    return { socket, ask };
  };

  it('are taken by the real thing, whatever the user had set', async () => {
    for (const name of ['plain.in.yaml', 'user-set.in.yaml']) {
      for (const controller of [undefined, { address: '127.0.0.1', port: 1 }]) {
        const e = { ...environment, ...(controller && { controller }) };
        const { value } = withBootstrapPresets(await golden(name), e);
        expect(await validate(value, 'validated.json')).toMatchObject({ code: 0 });
      }
    }
  });

  it('leave no unknown field, no removed guard and no bug in its log', async () => {
    expect(await stat('server.static_unknown_fields')).toBe(0);
    expect(await stat('server.dynamic_unknown_fields')).toBe(0);
    expect(await stat('server.envoy_bug_failures')).toBe(0);
    expect(readFileSync(path.join(block.dir, 'envoy.log'), 'utf8')).not.toMatch(/\[(error|critical)\]|deprecated/);
  });

  it('at full pressure: GOAWAY to idle HTTP/2; HTTP/1 told on its next response, left alone while silent; WebSocket lives', async () => {
    const idle2 = await connectH2();
    const silent = await connectH1();
    const busy = await connectH1();
    await silent.ask();
    expect(await busy.ask()).not.toMatch(/connection: close/i);
    const upgrade = net.connect(port, '127.0.0.1').on('error', () => {});
    clients.push(upgrade);
    upgrade.write('GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n');
    expect(String((await once(upgrade, 'data'))[0])).toMatch(/^HTTP\/1.1 101/);
    let silentEnded = false;
    silent.socket.on('end', () => (silentEnded = true));

    writePressure(environment.pressureFile, 1);
    await idle2.goaway;
    const busyEnded = once(busy.socket, 'end');
    // The other worker hears of it a moment later.
    await expect.poll(() => busy.ask()).toMatch(/connection: close/i);
    await busyEnded;
    expect(silentEnded).toBe(false);
    expect(await silent.ask()).toMatch(/connection: close/i);
    upgrade.write('still here');
    expect(String((await once(upgrade, 'data'))[0])).toBe('still here');
  });

  it('between: only connections older than the cut-off', async () => {
    const old = await connectH2();
    const bornAt = Date.now();
    let youngTold = false;
    await expect.poll(() => Date.now() - bornAt, { timeout: 5_000 }).toBeGreaterThan(3_000);
    const young = await connectH2();
    void young.goaway.then(() => (youngTold = true));
    writePressure(environment.pressureFile, pressureForCutoff(2_500, 7 * DAY_MS));
    await old.goaway;
    expect(youngTold).toBe(false);
  }, 20_000);

  it('the slot for what tells single connections to leave is there where Envoy can, and takes it', async () => {
    const reloads = () => sum('config_reload');
    const sum = async (name: string) =>
      [...(await admin.get(`/stats?filter=sluice.leave.${name}`)).matchAll(/: (\d+)/g)].reduce(
        (n, m) => n + Number(m[1]),
        0,
      );
    if (!leaves('file', environment)) {
      expect(await admin.get('/stats?filter=sluice.leave')).toBe('');
      return;
    }
    const before = await reloads();
    writeAtomically(environment.leaveFile as string, orderFile(leaveTypedConfig(), LEAVE_RESOURCE));
    await expect.poll(reloads).toBeGreaterThan(before);
    expect(await sum('config_fail')).toBe(0);
    // Nothing is marked, so nobody is told.
    expect(await (await connectH1()).ask()).not.toMatch(/connection: close/i);
    writeAtomically(environment.leaveFile as string, orderFile(noOpTypedConfig(), LEAVE_RESOURCE));
  });

  it('kernel and admin see the same connections, TCP and Unix, and no upstream one', async () => {
    await expect.poll(async () => (await admin.downstream()).open).toBe(0);
    const h1 = await connectH1();
    await h1.ask();
    await connectH2();
    const raw = net.connect(path.join(block.dir, 'raw.sock')).on('error', () => {});
    clients.push(raw);
    raw.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
    await once(raw, 'data');
    expect((await admin.downstream()).open).toBe(3);
    const { open, sockets } = readKernel(envoy.pid, listen);
    expect(open).toBe(3);
    expect(sockets.map((s) => s.peer)).toContain(`127.0.0.1:${h1.socket.localPort}`);
    expect(sockets.map((s) => s.local)).toContain(path.join(block.dir, 'raw.sock'));
  });
});
