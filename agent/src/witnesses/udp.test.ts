import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { afterEach, expect, test } from 'vitest';
import { mayListenByUdp, udpAddressesOf } from './udp.ts';

let child: ChildProcess | undefined;

afterEach(() => {
  child?.kill('SIGKILL');
});

/** A process of its own, for this one may hold sockets of other tests. Returns its pid and what it printed. */
async function running(source: string): Promise<{ pid: number; line: string }> {
  child = spawn(process.execPath, ['--input-type=module', '-e', source], { stdio: ['ignore', 'pipe', 'inherit'] });
  const { pid = 0, stdout } = child;
  if (stdout === null) throw new Error('no stdout');
  const [line] = (await once(createInterface(stdout), 'line')) as [string];
  return { pid, line };
}

const bound = (then: string) => `
  import { createSocket } from 'node:dgram';
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1', () => { ${then} });`;

test('a socket without a peer may be a listener, on whatever port', async () => {
  const { pid, line } = await running(bound('console.log(socket.address().port)'));
  expect(mayListenByUdp(pid)).toBe(true);
  expect(udpAddressesOf(pid, [])).toEqual([]);
  expect(udpAddressesOf(pid, [`0.0.0.0:${line}`])).toEqual([`127.0.0.1:${line}`]);
});

test('a connected one, as of a resolver, is none', async () => {
  const { pid } = await running(bound(`socket.connect(9, '127.0.0.1', () => console.log('connected'))`));
  expect(mayListenByUdp(pid)).toBe(false);
});

test('without any there is none; of a process that is gone nothing is known', async () => {
  const { pid } = await running(`setInterval(() => {}, 1000); console.log('up')`);
  expect(mayListenByUdp(pid)).toBe(false);
  child?.kill('SIGKILL');
  await once(child as ChildProcess, 'exit');
  expect(mayListenByUdp(pid)).toBe(true);
});
