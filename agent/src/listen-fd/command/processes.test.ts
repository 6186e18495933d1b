import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { identify, type ProcessId } from '../../epochs/proc.ts';
import { close } from '../../native/fds.ts';
import { bindListen, boundAddress } from '../../native/listen-socket.ts';
import { ProcessGroup } from './processes.ts';

const children: ChildProcess[] = [];
const sockets: net.Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

/**
 * A master that keeps the inherited socket (fd 3) open and a worker that accepts on it; by SIGUSR1 the worker closes its
 * listener and ends with its last connection.
 */
const WORKER = `
  const server = require('net').createServer((s) => s.on('error', () => {}));
  server.listen({ fd: 3 }, () => process.stdout.write('ready\\n'));
  process.on('SIGUSR1', () => server.close(() => process.exit(0)));`;
const MASTER = `
  const worker = require('child_process').spawn(process.execPath, ['-e', ${JSON.stringify(WORKER)}],
    { stdio: ['ignore', 'inherit', 'inherit', 3] });
  process.on('SIGUSR1', () => worker.kill('SIGUSR1'));
  worker.on('exit', () => process.exit(0));`;

async function start(): Promise<{ group: ProcessGroup; child: ChildProcess; port: number }> {
  const fd = bindListen('127.0.0.1:0');
  const address = boundAddress(fd);
  const child = spawn(process.execPath, ['-e', MASTER], { stdio: ['ignore', 'pipe', 'inherit', fd] });
  children.push(child);
  await once(child.stdout as NodeJS.ReadableStream, 'data');
  close(fd);
  const group = new ProcessGroup(identify(child.pid as number) as ProcessId, [address]);
  return { group, child, port: Number(address.split(':')[1]) };
}

async function connect(port: number): Promise<net.Socket> {
  const socket = net.connect(port, '127.0.0.1');
  socket.on('error', () => {});
  sockets.push(socket);
  await once(socket, 'connect');
  return socket;
}

it("counts the workers' connections, and only workers accept", async () => {
  const { group, child, port } = await start();
  expect(group.living()).toHaveLength(2);
  expect(group.accepts()).toBe(true);
  const first = await connect(port);
  await expect.poll(() => group.sockets().map(({ peer }) => peer)).toEqual([`127.0.0.1:${first.localPort}`]);
  // No word on the number while another one may come.
  expect(group.witness(1).witness).toEqual({ name: 'kernel', at: 1, why: 'it accepts still' });
  group.signal('SIGUSR1');
  await expect.poll(() => group.accepts()).toBe(false);
  expect(group.witness(2).witness).toEqual({ name: 'kernel', at: 2, open: 1 });
  const ended = once(child, 'exit');
  first.destroy();
  await ended;
  expect(group.witness(3).witness).toEqual({ name: 'kernel', at: 3, open: 0 });
});

it('remembers a worker that outlived its master, and kills it too', async () => {
  const { group, child } = await start();
  const [, worker] = group.living();
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(group.living()).toEqual([worker]);
  expect(group.accepts()).toBe(true);
  group.kill();
  await expect.poll(() => group.living()).toEqual([]);
  expect(group.accepts()).toBe(false);
});
