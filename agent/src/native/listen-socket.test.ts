import { closeSync } from 'node:fs';
import net from 'node:net';
import { expect, it } from 'vitest';
import { hasReusePort, isListening } from './fds.ts';
import { bindListen, boundAddress, normalAddress } from './listen-socket.ts';

it.each(['127.0.0.1', '[::1]', '0.0.0.0', '[::]'])('listens on %s and tells its address', async (host) => {
  let fd: number;
  try {
    fd = bindListen(`${host}:0`);
  } catch (error) {
    if (
      (error as NodeJS.ErrnoException).code === 'EAFNOSUPPORT' ||
      (error as NodeJS.ErrnoException).code === 'EADDRNOTAVAIL'
    )
      return; // no IPv6 on this machine
    throw error;
  }
  const address = boundAddress(fd);
  expect(address).toMatch(new RegExp(`^${host.replaceAll(/[[\].]/g, '\\$&')}:\\d+$`));
  expect(isListening(fd)).toBe(true);
  expect(hasReusePort(fd)).toBe(false);
  const port = Number(address.slice(address.lastIndexOf(':') + 1));
  const connected = await new Promise((resolve) => {
    const socket = net.connect({ port, host: host.includes(':') ? '::1' : '127.0.0.1' });
    socket.once('connect', () => resolve(true)).once('error', resolve);
    socket.once('connect', () => socket.destroy());
  });
  expect(connected).toBe(true);
  closeSync(fd);
});

it('gives an address to one only', () => {
  const fd = bindListen('127.0.0.1:0');
  expect(() => bindListen(boundAddress(fd))).toThrow(/EADDRINUSE/);
  closeSync(fd);
});

it('knows an address by its one spelling, and no names', () => {
  expect(normalAddress('[0:0:0:0:0:0:0:1]:80')).toBe('[::1]:80');
  expect(normalAddress('10.0.0.1:80')).toBe('10.0.0.1:80');
  expect(() => normalAddress('localhost:80')).toThrow(/expected IP:PORT/);
  expect(() => normalAddress('10.0.0.256:80')).toThrow(/expected IP:PORT/);
  expect(() => normalAddress('10.0.0.1:80000')).toThrow(/expected IP:PORT/);
});
