import { closeSync, readSync, writeSync } from 'node:fs';
import { endianness } from 'node:os';
import { libc, must } from './libc.ts';
import { ipv6Text } from './tcp-address.ts';

/** One TCP socket of the kernel's table. */
export interface TcpSocket {
  /** 0 when no process holds it any more. */
  readonly inode: number;
  /** TCP_ESTABLISHED = 1, TCP_CLOSE_WAIT = 8, TCP_LISTEN = 10, as in the kernel's tcp_states.h. */
  readonly state: number;
  /** `127.0.0.1:10000`, IPv6 in brackets. */
  readonly local: string;
  readonly peer: string;
  /** Bytes were written to it that its other end has not taken (acknowledged) yet. */
  readonly unsent: boolean;
}

/**
 * The kernel's TCP sockets over netlink, sock_diag(7): it filters by state and local port itself, so TIME_WAIT, of which
 * there are 60,000 after a minute of 1,000 short connections a second, is never written out.
 */
const AF_INET = 2;
const AF_INET6 = 10;
const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC_NONBLOCK = 3 | 0o2000000 | 0o4000;
const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const NLM_F_REQUEST_DUMP = 0x301;
const NLM_F_DUMP_INTR = 0x10;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const IPPROTO_TCP = 6;
const TCP_LISTEN = 10;
const INET_DIAG_REQ_BYTECODE = 1;
const BC_JMP = 1;
const BC_S_GE = 2;
const BC_S_LE = 3;
/** struct nlmsghdr, struct inet_diag_req_v2, struct inet_diag_msg */
const HEADER = 16;
const REQUEST = 56;
const MESSAGE = 72;
/** The kernel fills at most 32 KiB a read, whatever the room: a message is never cut. */
const BUFFER = 64 * 1024;
/** Against a kernel that never ends: no table has more messages than that many reads. */
const MAX_READS = 10_000;

export type Family = 'ipv4' | 'ipv6';
const FAMILIES: Readonly<Record<Family, number>> = { ipv4: AF_INET, ipv6: AF_INET6 };

/**
 * Sockets in one of `states` of the network that this process sees; those with one of the local `ports` only, where any are
 * given. Each dump walks the kernel's whole table (0.7 ms of CPU for 262,144 buckets): one for each family, whatever the
 * number of ports. Throws where the kernel has no sock_diag, forbids it, or answers what can not be relied on.
 */
export function tcpSockets(
  states: readonly number[],
  ports: readonly number[] = [],
  families: readonly Family[] = ['ipv4', 'ipv6'],
): TcpSocket[] {
  if (endianness() !== 'LE') throw new Error('sock_diag: expected a little-endian machine');
  const fd = must('socket', libc().socket(AF_NETLINK, SOCK_RAW_CLOEXEC_NONBLOCK, NETLINK_SOCK_DIAG));
  try {
    const sockets: TcpSocket[] = [];
    for (const family of families) dump(fd, FAMILIES[family], states, ports, sockets);
    return sockets;
  } finally {
    closeSync(fd);
  }
}

function dump(
  fd: number,
  family: number,
  states: readonly number[],
  ports: readonly number[],
  into: TcpSocket[],
): void {
  const filter = ports.length > 1 ? portFilter(ports) : Buffer.alloc(0);
  const request = Buffer.alloc(HEADER + REQUEST);
  request.writeUInt32LE(request.length + filter.length, 0);
  request.writeUInt16LE(SOCK_DIAG_BY_FAMILY, 4);
  request.writeUInt16LE(NLM_F_REQUEST_DUMP, 6);
  request.writeUInt8(family, HEADER);
  request.writeUInt8(IPPROTO_TCP, HEADER + 1);
  const mask = states.reduce((bits, state) => bits | (1 << state), 0);
  request.writeUInt32LE(mask, HEADER + 4);
  if (ports.length === 1) request.writeUInt16BE(ports[0] as number, HEADER + 8);
  // A dump is made by the kernel within these calls: write and read need no waiting.
  writeSync(fd, Buffer.concat([request, filter]));
  const buffer = Buffer.allocUnsafe(BUFFER);
  for (let i = 0; i < MAX_READS; i++) {
    const size = readSync(fd, buffer, 0, buffer.length, null);
    if (parseMessages(buffer.subarray(0, size), into)) return;
  }
  throw new Error(`sock_diag: no end after ${MAX_READS} reads`);
}

/**
 * The attribute INET_DIAG_REQ_BYTECODE that accepts each of the local ports (net/ipv4/inet_diag.c, inet_diag_bc_run): of an
 * operation {code, yes, no} both are distances in bytes to go on at; at the very end a socket is taken, past it it is not.
 */
export function portFilter(ports: readonly number[]): Buffer {
  const size = 20 * ports.length - 4;
  const attribute = Buffer.alloc(4 + size);
  attribute.writeUInt16LE(attribute.length, 0);
  attribute.writeUInt16LE(INET_DIAG_REQ_BYTECODE, 2);
  const operation = (at: number, code: number, yes: number, no: number) => {
    attribute.writeUInt8(code, 4 + at);
    attribute.writeUInt8(yes, 4 + at + 1);
    attribute.writeUInt16LE(no, 4 + at + 2);
  };
  for (const [i, port] of ports.entries()) {
    const at = 20 * i;
    // Port >= and port <=, each with the port in an operation of its own behind it; not: on to the next port.
    operation(at, BC_S_GE, 8, 20);
    operation(at + 4, 0, 0, port);
    operation(at + 8, BC_S_LE, 8, 12);
    operation(at + 12, 0, 0, port);
    if (i < ports.length - 1) operation(at + 16, BC_JMP, 4, size - at - 16);
  }
  return attribute;
}

/** Adds the sockets of one read to `into`; true when the dump ends with it. Throws on an error or a cut message. */
export function parseMessages(data: Buffer, into: TcpSocket[]): boolean {
  let at = 0;
  while (at < data.length) {
    const length = at + HEADER <= data.length ? data.readUInt32LE(at) : 0;
    if (length < HEADER || at + length > data.length) throw new Error(`sock_diag: a cut message at ${at}`);
    const type = data.readUInt16LE(at + 4);
    // Both carry an error number, which is 0 or the length for a dump that went well.
    const result = length >= HEADER + 4 ? data.readInt32LE(at + HEADER) : 0;
    if (type === NLMSG_ERROR || (type === NLMSG_DONE && result < 0)) throw new Error(`sock_diag: error ${result}`);
    if ((data.readUInt16LE(at + 6) & NLM_F_DUMP_INTR) !== 0) throw new Error('sock_diag: the dump was interrupted');
    if (type === NLMSG_DONE) return true;
    if (type === SOCK_DIAG_BY_FAMILY) {
      if (length < HEADER + MESSAGE) throw new Error(`sock_diag: a message of ${length} bytes`);
      into.push(socketOf(data, at + HEADER));
    }
    at += (length + 3) & ~3;
  }
  return false;
}

function socketOf(data: Buffer, at: number): TcpSocket {
  const family = data.readUInt8(at);
  return {
    state: data.readUInt8(at + 1),
    inode: data.readUInt32LE(at + 68),
    local: addressOf(data, family, at + 8, data.readUInt16BE(at + 4)),
    peer: addressOf(data, family, at + 24, data.readUInt16BE(at + 6)),
    // Of a listen socket idiag_wqueue is the room in its queue.
    unsent: data.readUInt8(at + 1) !== TCP_LISTEN && data.readUInt32LE(at + 60) > 0,
  };
}

function addressOf(data: Buffer, family: number, at: number, port: number): string {
  if (family === AF_INET) return `${data[at]}.${data[at + 1]}.${data[at + 2]}.${data[at + 3]}:${port}`;
  return `${ipv6Text(data.subarray(at, at + 16))}:${port}`;
}
