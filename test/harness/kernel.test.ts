import net from 'node:net';
import { expect, it } from 'vitest';
import { clientPortsOf } from './kernel.ts';

it('names the client ports of the connections that a process has accepted, and no others', async () => {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as net.AddressInfo;
  const accepted = new Promise<net.Socket>((resolve) => server.once('connection', resolve));
  const client = net.connect(port, '127.0.0.1');
  const socket = await accepted;
  expect([...(await clientPortsOf(process.pid, [port]))]).toEqual([client.localPort]);
  expect([...(await clientPortsOf(process.pid, [port + 1]))]).toEqual([]);
  client.destroy();
  socket.destroy();
  server.close();
});
