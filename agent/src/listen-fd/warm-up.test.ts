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
  expect(await warmUp([{ server: one, ask }], doorbell('a'))).toEqual([]);
  expect(one.listening).toBe(false);
  expect(existsSync(doorbell('a'))).toBe(false);
});

it('ends when the last of the servers is warm, and says which were not', async () => {
  const slow = Promise.withResolvers<void>();
  let over = false;
  const fails = async () => {
    await slow.promise;
    throw new Error('no answer');
  };
  const all = [ask, fails, () => Promise.reject('no error')].map((each) => ({ server: server(), ask: each }));
  const warm = warmUp(all, doorbell('a')).finally(() => {
    over = true;
  });
  const probe = server().listen(0);
  await once(probe, 'listening');
  await ask2(probe);
  expect(over).toBe(false);
  slow.resolve();
  expect((await warm).map(({ message }) => message)).toEqual(['no answer', 'no error']);
  probe.close();
});

it('warms up also where the rehearsal of a transfer can not be', async () => {
  expect(await warmUp([{ server: server(), ask }], join(tmpdir(), 'x'.repeat(120)))).toEqual([]);
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
