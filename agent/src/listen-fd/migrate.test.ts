import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type Migration, migrate, type ServerAt } from './migrate.ts';

let dir: string;
let socket: string;
const migrations: Migration[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sluice-migrate-'));
  socket = join(dir, 'app.sock');
});
afterEach(async () => {
  for (const each of migrations.splice(0)) {
    each.drain();
    await each.drained;
  }
  rmSync(dir, { recursive: true });
});

/** Two addresses that are free now. */
async function addresses(): Promise<[string, string]> {
  const probes = [net.createServer(), net.createServer()];
  const found: string[] = [];
  for (const probe of probes) {
    await once(probe.listen(0, '127.0.0.1'), 'listening');
    found.push(`127.0.0.1:${(probe.address() as net.AddressInfo).port}`);
  }
  for (const probe of probes) await new Promise((resolve) => probe.close(resolve));
  return found as [string, string];
}

/** One generation: a server for each address, that says its name. */
async function generation(name: string, all: readonly string[]): Promise<Migration> {
  const servers = all.map((address) => ({
    server: net.createServer((connection) => connection.end(name)),
    addresses: [address],
  }));
  const migration = await migrate(servers, { socket });
  migrations.push(migration);
  return migration;
}

async function whoServes(all: readonly string[]): Promise<string[]> {
  return Promise.all(
    all.map(async (address) => {
      const client = net.connect(Number(address.split(':')[1]), '127.0.0.1');
      let said = '';
      client.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
      await once(client, 'close');
      return said;
    }),
  );
}

it('hands all servers of a process over at once', async () => {
  const all = await addresses();
  const first = await generation('first', all);
  expect(first.takenOver).toBe(false);
  expect(await whoServes(all)).toEqual(['first', 'first']);
  const second = await generation('second', all);
  expect(second.takenOver).toBe(true);
  expect(await first.drained).toMatchObject({ drained: true, left: [] });
  expect(await whoServes(all)).toEqual(['second', 'second']);
});

it('hands over none when one of them can not be served', async () => {
  const all = await addresses();
  const first = await generation('first', all);
  let released = false;
  void first.released.then(() => {
    released = true;
  });
  const other = net.createServer();
  await once(other.listen(0, '127.0.0.1'), 'listening');
  const used = `127.0.0.1:${(other.address() as net.AddressInfo).port}`;
  await expect(generation('second', [...all, used])).rejects.toThrow('EADDRINUSE');
  expect(await whoServes(all)).toEqual(['first', 'first']);
  expect(released).toBe(false);
  other.close();
});

it('of two that start at once one has all in the end, and the other one drains', async () => {
  const all = await addresses();
  let before = await generation('0', all);
  for (let n = 1; n <= 10; n++) {
    const names = [`${n}a`, `${n}b`];
    const both = await Promise.all(names.map((name) => generation(name, all)));
    await before.drained;
    const [a, b] = both as [Migration, Migration];
    const left = await Promise.race([a.drained.then(() => b), b.drained.then(() => a)]);
    expect(await whoServes(all)).toEqual(all.map(() => names[both.indexOf(left)]));
    before = left;
  }
});

it.each<[string, () => readonly ServerAt[], RegExp]>([
  ['no server', () => [], /expected a server, found none/],
  ['no address', () => [{ server: net.createServer(), addresses: [] }], /expected an address to listen on, found none/],
  [
    'an address of two servers',
    () => ['0.0.0.0:1', '0.0.0.0:01'].map((address) => ({ server: net.createServer(), addresses: [address] })),
    /expected each address once, found 0\.0\.0\.0:1 twice/,
  ],
])('refuses %s', async (_, servers, message) => {
  await expect(migrate(servers(), { socket })).rejects.toThrow(message);
});

it('refuses a server that listens', async () => {
  const server = net.createServer();
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const [address] = await addresses();
  await expect(migrate(server, { socket, addresses: [address] })).rejects.toThrow('does not listen yet');
  server.close();
});
