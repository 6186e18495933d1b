import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { expect, it, vi } from 'vitest';
import { listenFds } from './listeners.ts';
import { addressText } from './tcp-address.ts';
import { TCP_LISTEN, tcpTable } from './tcp-table.ts';

vi.mock('./sock-diag.ts', () => ({
  tcpSockets: () => {
    throw new Error('socket: EPERM');
  },
}));

it('reads /proc where netlink is not permitted', async () => {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const local = `127.0.0.1:${port}`;
  expect(tcpTable(process.pid, { states: [TCP_LISTEN], ports: [port] })).toMatchObject([{ local, state: TCP_LISTEN }]);
  expect(listenFds(process.pid).map(({ address }) => address)).toContain(`tcp://${local}`);
  server.close();
});

it('does not take the table of a process that is gone for an empty one', () => {
  expect(() => tcpTable(2 ** 22 + 1, { states: [TCP_LISTEN] })).toThrow(/ENOENT/);
});

it.each([
  ['0100007F:59D8', '127.0.0.1:23000'],
  ['00000000000000000000000001000000:0050', '[::1]:80'],
  ['0000000000000000FFFF00000100007F:0050', '[::ffff:7f00:1]:80'],
])('writes %s as %s', (column, text) => expect(addressText(column)).toBe(text));
