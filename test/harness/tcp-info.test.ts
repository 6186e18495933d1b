import net from 'node:net';
import { expect, test } from 'vitest';
import { synsSentAgain } from './tcp-info.ts';

test('a connect whose first SYN was heard sent none again; of a closed socket nothing is known', async () => {
  const server = net.createServer((socket) => socket.resume().on('end', () => socket.end()));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const socket = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1');
  await new Promise((resolve) => socket.once('connect', resolve));
  expect(synsSentAgain(socket)).toBe(0);
  socket.destroy();
  await new Promise((resolve) => socket.once('close', resolve));
  expect(synsSentAgain(socket)).toBeUndefined();
  server.close();
});
