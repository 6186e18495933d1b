import { closeSync, readlinkSync, readSync, writeSync } from 'node:fs';
import { endianness } from 'node:os';
import { libc, must } from '../native/libc.ts';

/**
 * The kernel's TCP sockets by local port, over netlink (sock_diag(7)): it leaves out TIME_WAIT by itself. /proc/net/tcp
 * lists that too, and after a minute of short connections it has 60,000 lines: 270 ms a look, against 10 ms here.
 */
export interface TcpSocket {
  /** 0 when no process holds it any more. */
  readonly inode: number;
  /** As in /proc/net/tcp: 1 = ESTABLISHED, 8 = CLOSE_WAIT, 10 = LISTEN. */
  readonly state: number;
  /** `127.0.0.1:10000`, IPv6 in brackets. */
  readonly local: string;
  readonly peer: string;
}

const AF_INET = 2;
const AF_INET6 = 10;
const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC_NONBLOCK = 3 | 0o2000000 | 0o4000;
const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const NLM_F_REQUEST_DUMP = 0x301;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const IPPROTO_TCP = 6;
/** struct nlmsghdr, struct inet_diag_req_v2, struct inet_diag_msg */
const HEADER = 16;
const REQUEST = 56;
const MESSAGE = 72;
/** No dump of a port has more messages than that many reads; netlink fills up to 32 KiB each. */
const MAX_READS = 10_000;

/** Whether that process sees the network that we see; netlink shows our own only. */
export function sameNetwork(pid: number): boolean {
  return readlinkSync(`/proc/${pid}/ns/net`) === readlinkSync('/proc/self/ns/net');
}

/** Sockets with that local port in one of `states`. Throws a SystemError where the kernel has no sock_diag. */
export function tcpSockets(port: number, states: readonly number[]): TcpSocket[] {
  if (endianness() !== 'LE') throw new Error('expected a little-endian machine');
  const fd = must('socket', libc().socket(AF_NETLINK, SOCK_RAW_CLOEXEC_NONBLOCK, NETLINK_SOCK_DIAG));
  try {
    return [AF_INET, AF_INET6].flatMap((family) => dump(fd, family, port, states));
  } finally {
    closeSync(fd);
  }
}

function dump(fd: number, family: number, port: number, states: readonly number[]): TcpSocket[] {
  const request = Buffer.alloc(HEADER + REQUEST);
  request.writeUInt32LE(request.length, 0);
  request.writeUInt16LE(SOCK_DIAG_BY_FAMILY, 4);
  request.writeUInt16LE(NLM_F_REQUEST_DUMP, 6);
  request.writeUInt8(family, HEADER);
  request.writeUInt8(IPPROTO_TCP, HEADER + 1);
  request.writeUInt32LE(
    states.reduce((mask, state) => mask | (1 << state), 0),
    HEADER + 4,
  );
  request.writeUInt16BE(port, HEADER + 8);
  // A dump is made by the kernel within these calls: write and read need no waiting.
  writeSync(fd, request);
  const sockets: TcpSocket[] = [];
  const buffer = Buffer.allocUnsafe(64 * 1024);
  for (let i = 0; i < MAX_READS; i++) {
    const size = readSync(fd, buffer, 0, buffer.length, null);
    for (let at = 0; at + HEADER <= size; ) {
      const length = buffer.readUInt32LE(at);
      const type = buffer.readUInt16LE(at + 4);
      if (type === NLMSG_DONE) return sockets;
      if (type === NLMSG_ERROR || length < HEADER) {
        throw new Error(`sock_diag: error ${length >= HEADER + 4 ? buffer.readInt32LE(at + HEADER) : 'unknown'}`);
      }
      if (length >= HEADER + MESSAGE) sockets.push(socketOf(buffer, at + HEADER));
      at += (length + 3) & ~3;
    }
  }
  throw new Error(`sock_diag: no end after ${MAX_READS} reads`);
}

function socketOf(buffer: Buffer, at: number): TcpSocket {
  const family = buffer.readUInt8(at);
  return {
    state: buffer.readUInt8(at + 1),
    inode: buffer.readUInt32LE(at + 68),
    local: addressOf(buffer, family, at + 8, buffer.readUInt16BE(at + 4)),
    peer: addressOf(buffer, family, at + 24, buffer.readUInt16BE(at + 6)),
  };
}

function addressOf(buffer: Buffer, family: number, at: number, port: number): string {
  if (family === AF_INET) return `${buffer[at]}.${buffer[at + 1]}.${buffer[at + 2]}.${buffer[at + 3]}:${port}`;
  const groups = Array.from({ length: 8 }, (_, i) => buffer.readUInt16BE(at + 2 * i).toString(16));
  // URL has the one short spelling of an IPv6 address.
  return `${new URL(`tcp://[${groups.join(':')}]`).hostname}:${port}`;
}
