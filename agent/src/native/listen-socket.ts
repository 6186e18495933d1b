import { closeSync } from 'node:fs';
import { isIP } from 'node:net';
import { SluiceError } from '@sluice/contract';
import { libc, must } from './libc.ts';
import { ipv6Text } from './tcp-address.ts';

/** Listening TCP sockets made by hand, so that their descriptor is ours from the start: to keep, to pass on, to inherit. */
const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM_CLOEXEC_NONBLOCK = 1 | 0o2000000 | 0o4000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
/** The kernel lowers it to net.core.somaxconn. */
const BACKLOG = 4_096;

/** `127.0.0.1:80`, `[::1]:80`: the one spelling of an address of two. Throws CONFIG_INVALID for names and odd ports. */
export function normalAddress(text: string): string {
  const { host, port } = parseAddress(text);
  return isIP(host) === 6 ? `${new URL(`tcp://[${host}]`).hostname}:${port}` : `${host}:${port}`;
}

/**
 * Binds and listens; not with SO_REUSEPORT, so that of two processes that start at once one gets EADDRINUSE. An IPv6
 * address takes IPv6 connections only, so that `0.0.0.0` and `[::]` may be had side by side. Close-on-exec, non-blocking.
 */
export function bindListen(text: string, backlog = BACKLOG): number {
  const { host, port } = parseAddress(text);
  const six = isIP(host) === 6;
  const fd = must('socket', libc().socket(six ? AF_INET6 : AF_INET, SOCK_STREAM_CLOEXEC_NONBLOCK, 0));
  try {
    setOption(fd, SOL_SOCKET, SO_REUSEADDR);
    if (six) setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    const address = six ? inet6(host, port) : inet4(host, port);
    must('bind', libc().bind(fd, address, address.length));
    must('listen', libc().listen(fd, backlog));
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** The address that a socket is bound to: `127.0.0.1:80`, `[::1]:80`, or a Unix socket's path (`@name` when abstract). */
export function boundAddress(fd: number): string {
  const address = Buffer.alloc(128);
  const length = Buffer.alloc(4);
  length.writeInt32LE(address.length);
  must('getsockname', libc().getsockname(fd, address, length));
  const family = address.readUInt16LE(0);
  const port = address.readUInt16BE(2);
  if (family === AF_INET) return `${address.subarray(4, 8).join('.')}:${port}`;
  if (family === AF_INET6) return `${ipv6Text(address.subarray(8, 24))}:${port}`;
  if (family !== AF_UNIX)
    throw new SluiceError('INPUT_INVALID', `expected a TCP or Unix socket, found family ${family}`);
  const name = address.subarray(2, Math.max(2, length.readInt32LE(0))).toString('utf8');
  return name.startsWith('\0') ? `@${name.slice(1)}` : name.replace(/\0+$/, '');
}

function parseAddress(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3]);
  if (isIP(host) !== (match?.[1] === undefined ? 4 : 6) || port > 65_535) {
    throw new SluiceError('CONFIG_INVALID', `expected IP:PORT or [IPv6]:PORT, found ${JSON.stringify(text)}`);
  }
  return { host, port };
}

function setOption(fd: number, level: number, option: number): void {
  const value = Buffer.alloc(4);
  value.writeInt32LE(1);
  must('setsockopt', libc().setsockopt(fd, level, option, value, 4));
}

function inet4(host: string, port: number): Buffer {
  const address = Buffer.alloc(16);
  address.writeUInt16LE(AF_INET, 0);
  address.writeUInt16BE(port, 2);
  Buffer.from(host.split('.').map(Number)).copy(address, 4);
  return address;
}

function inet6(host: string, port: number): Buffer {
  const address = Buffer.alloc(28);
  address.writeUInt16LE(AF_INET6, 0);
  address.writeUInt16BE(port, 2);
  groupsOf(new URL(`tcp://[${host}]`).hostname.slice(1, -1)).forEach((group, i) => {
    address.writeUInt16BE(group, 8 + 2 * i);
  });
  return address;
}

/** The eight groups of a short spelling: `::` stands for as many zeros as are missing. */
function groupsOf(short: string): number[] {
  const [head = '', tail] = short.split('::');
  const parse = (part: string) => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16)));
  const [first, last] = [parse(head), parse(tail ?? '')];
  return tail === undefined ? first : [...first, ...new Array(8 - first.length - last.length).fill(0), ...last];
}
