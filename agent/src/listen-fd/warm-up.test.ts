import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { coresIdle } from './cores.ts';
import { warmUp } from './warm-up.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sluice-warm-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const server = () => net.createServer((socket) => socket.end('hello'));

async function ask(path: string): Promise<void> {
  const socket = net.connect(path);
  const [data] = await once(socket, 'data');
  expect(String(data)).toBe('hello');
}

it('sends what the caller asks through a server that does not listen', async () => {
  const one = server();
  await warmUp(one, join(dir, 'a'), ask);
  expect(one.listening).toBe(false);
  expect(readdirSync(dir)).toEqual([]);
});

it('ends for all that began together when the last of them is warm, also when one of them fails', async () => {
  const slow = Promise.withResolvers<void>();
  const over: string[] = [];
  const first = warmUp(server(), join(dir, 'a'), ask).then(() => over.push('first'));
  const second = warmUp(server(), join(dir, 'b'), async () => {
    await slow.promise;
    throw new Error('no answer');
  }).catch((error: Error) => over.push(error.message));
  const probe = server().listen(0);
  await once(probe, 'listening');
  await ask2(probe);
  expect(over).toEqual([]);
  slow.resolve();
  await Promise.all([first, second]);
  expect(over.sort()).toEqual(['first', 'no answer']);
  probe.close();
});

it('looks whether the cores have something left', () => {
  expect(typeof coresIdle()).toBe('boolean');
});

/** Something that takes some turns of the loop. */
async function ask2(probe: net.Server): Promise<void> {
  const socket = net.connect((probe.address() as net.AddressInfo).port);
  await once(socket, 'data');
}
