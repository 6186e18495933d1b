import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { expect, it } from 'vitest';
import { identify, type ProcessId } from '../../epochs/proc.ts';
import { inode } from '../../native/fds.ts';
import { HeldSockets } from './sockets.ts';

it('takes a socket that an old process of ours holds still, instead of failing to bind its address', async () => {
  const server = net.createServer().listen({ port: 0, host: '127.0.0.1' });
  await once(server, 'listening');
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const holder = (server as unknown as { _handle: { fd: number } })._handle.fd;
  await expect(HeldSockets.open({ HTTP: address }, undefined)).rejects.toThrow(/EADDRINUSE/);
  const gone: ProcessId = { pid: 2 ** 22 + 1, startTime: '0' };
  const { sockets, taking } = await HeldSockets.open({ HTTP: address }, undefined, [
    gone,
    identify(process.pid) as ProcessId,
  ]);
  expect(taking).toBeUndefined();
  expect(sockets.list.map(({ fd }) => inode(fd))).toEqual([inode(holder)]);
  sockets.close();
  server.close();
});
