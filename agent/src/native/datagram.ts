import { closeSync } from 'node:fs';
import { SluiceError } from '@sluice/contract';
import { check, libc, must } from './libc.ts';
import { controlRoom, decodeRights, encodeRights } from './scm-rights.ts';

/**
 * AF_UNIX datagram sockets with abstract names, and the descriptors that travel with a message (SCM_RIGHTS). Envoy fills
 * the whole sun_path with NULs after the name (hot_restarting_base.cc binds with sizeof(sockaddr_un)), so the padded
 * form is the name.
 */
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const MSG_CTRUNC = 0x08;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const MSG_CMSG_CLOEXEC = 0x40000000;
const PATH_LENGTH = 108;
const MAX_DATAGRAM = 65_536;
/** Envoy sends one descriptor a message; room for more so that a surplus one is closed and not leaked. */
const MAX_FDS = 8;

export interface Datagram {
  readonly data: Buffer;
  /** Owned by the receiver: dup what is to be kept, close all. */
  readonly fds: number[];
  /** Abstract name of the sender's socket without `@`; empty when it has none. */
  readonly from: string;
}

/** `name` without `@`, up to 107 bytes. */
function sockaddr(name: string): Buffer {
  const bytes = Buffer.from(name, 'latin1');
  if (bytes.length === 0 || bytes.length > PATH_LENGTH - 1) {
    throw new SluiceError(
      'INPUT_INVALID',
      `expected a socket name of 1 to ${PATH_LENGTH - 1} bytes, found ${bytes.length} in "@${name}"`,
      { hint: 'use a shorter --socket-path' },
    );
  }
  const address = Buffer.alloc(2 + PATH_LENGTH);
  address.writeUInt16LE(AF_UNIX, 0);
  bytes.copy(address, 3);
  return address;
}

/** A bound, non-blocking datagram socket; EADDRINUSE when the name is taken. */
export function bindDatagram(name: string): number {
  const address = sockaddr(name);
  const fd = must('socket', libc().socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  try {
    must('bind', libc().bind(fd, address, address.length));
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** One datagram, or undefined when none waits. Throws when it was cut short. */
export function receive(fd: number): Datagram | undefined {
  const data = Buffer.allocUnsafe(MAX_DATAGRAM);
  const control = controlRoom(MAX_FDS);
  const name = Buffer.alloc(2 + PATH_LENGTH);
  const header = {
    msg_name: name,
    msg_namelen: name.length,
    msg_iov: [{ iov_base: data, iov_len: data.length }],
    msg_iovlen: 1,
    msg_control: control,
    msg_controllen: control.length,
    msg_flags: 0,
  };
  const got = check('recvmsg', Number(libc().recvmsg(fd, header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)), 'EAGAIN', 'EINTR');
  if (got === undefined) return undefined;
  const fds = decodeRights(control.subarray(0, Number(header.msg_controllen)));
  if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) !== 0) {
    for (const each of fds) closeSync(each);
    throw new SluiceError(
      'TOO_LARGE',
      `a datagram of more than ${MAX_DATAGRAM} bytes or ${MAX_FDS} descriptors arrived`,
    );
  }
  const from = name.subarray(3, Math.max(3, header.msg_namelen)).toString('latin1').replace(/\0+$/, '');
  return { data: Buffer.from(data.subarray(0, got)), fds, from };
}

/**
 * `sent`; `full`: the receiver's queue has no room now; `gone`: nobody holds that name (any more).
 * The descriptors stay the caller's.
 */
export function send(fd: number, to: string, data: Buffer, fds: readonly number[] = []): 'sent' | 'full' | 'gone' {
  const address = sockaddr(to);
  const control = encodeRights(fds);
  const header = {
    msg_name: address,
    msg_namelen: address.length,
    msg_iov: [{ iov_base: data, iov_len: data.length }],
    msg_iovlen: 1,
    msg_control: control,
    msg_controllen: control?.length ?? 0,
    msg_flags: 0,
  };
  const result = Number(libc().sendmsg(fd, header, MSG_DONTWAIT));
  if (result >= 0) return 'sent';
  const errno = libc().koffi.errno();
  const { errno: codes } = libc().koffi.os;
  if (errno === codes.EAGAIN || errno === codes.ENOBUFS || errno === codes.EINTR) return 'full';
  if (errno === codes.ECONNREFUSED || errno === codes.ENOENT) return 'gone';
  must('sendmsg', result);
  return 'gone';
}
