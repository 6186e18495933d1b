import { once } from 'node:events';
import { existsSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { coresIdle } from './cores.ts';
import { type WarmUpAddress, warmUp } from './warm-up.ts';

const doorbell = (name: string) => join(tmpdir(), `sluice-warm-${process.pid}-${name}`);
const server = () => net.createServer((socket) => socket.end('hello'));

async function ask(address: WarmUpAddress): Promise<void> {
  const socket = net.connect(address);
  const [data] = await once(socket, 'data');
  expect(String(data)).toBe('hello');
}

it('sends what the caller asks through a server that does not listen', async () => {
  const one = server();
  await warmUp(one, doorbell('a'), ask);
  expect(one.listening).toBe(false);
  expect(existsSync(doorbell('a'))).toBe(false);
});

it('ends for all that began together when the last of them is warm, also when one of them fails', async () => {
  const slow = Promise.withResolvers<void>();
  const over: string[] = [];
  const first = warmUp(server(), doorbell('a'), ask).then(() => over.push('first'));
  const second = warmUp(server(), doorbell('b'), async () => {
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

it('warms up also where the rehearsal of a transfer can not be', async () => {
  await warmUp(server(), join(tmpdir(), 'x'.repeat(120)), ask);
});

it('steps aside only where it stepped behind: what a process starts meanwhile would inherit it', async () => {
  Reflect.deleteProperty(globalThis, Symbol.for('sluice.listen-fd.place'));
  vi.resetModules();
  const fresh = await import('./warm-up.ts');
  const how = vi.fn();
  fresh.stepAside(how);
  expect(how).not.toHaveBeenCalled();
  fresh.stepBehind(how);
  fresh.stepAside(how);
  expect(how.mock.calls).toEqual([[process.pid], [process.pid]]);
  fresh.stepForward();
});

it('looks whether the cores have something left', () => {
  expect(typeof coresIdle()).toBe('boolean');
});

/** Something that takes some turns of the loop. */
async function ask2(probe: net.Server): Promise<void> {
  const socket = net.connect((probe.address() as net.AddressInfo).port);
  await once(socket, 'data');
}
