import { closeSync } from 'node:fs';
import { SluiceError } from '@sluice/contract';
import { check, libc, must } from './libc.ts';
import { controlRoom, decodeRights, encodeRights } from './scm-rights.ts';

/**
 * AF_UNIX stream sockets with descriptors (SCM_RIGHTS), which Node's own do not carry. Nothing here blocks: sockets are
 * non-blocking, and each call is one system call.
 */
const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC_NONBLOCK = 1 | 0o2000000 | 0o4000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const MSG_CTRUNC = 0x08;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const PATH_LENGTH = 108;
const READ_BYTES = 65_536;

/** Most descriptors that one message may carry here; the kernel's own bound is 253 (SCM_MAX_FD). */
export const MAX_FDS_A_MESSAGE = 32;

export interface Received {
  /** Empty with `ended`. */
  readonly data: Buffer;
  /** Owned by the receiver: use or close each. */
  readonly fds: number[];
  readonly ended: boolean;
}

export interface Credentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/**
 * A connection to the listener at `path`, of which the caller owns the descriptor. `none`: nobody listens there (no
 * such file, or that of a dead process); `full`: its queue has no room now. Throws for anything else (EACCES).
 */
export function connectUnix(path: string): number | 'none' | 'full' {
  const bytes = Buffer.from(path);
  if (bytes.length === 0 || bytes.length >= PATH_LENGTH) {
    throw new SluiceError('CONFIG_INVALID', `expected a socket path of 1 to ${PATH_LENGTH - 1} bytes, found ${path}`, {
      hint: 'choose a shorter path',
    });
  }
  const address = Buffer.alloc(2 + PATH_LENGTH);
  address.writeUInt16LE(AF_UNIX, 0);
  bytes.copy(address, 2);
  const fd = must('socket', libc().socket(AF_UNIX, SOCK_STREAM_CLOEXEC_NONBLOCK, 0));
  if (libc().connect(fd, address, address.length) === 0) return fd;
  const errno = libc().koffi.errno();
  const codes = libc().koffi.os.errno;
  closeSync(fd);
  if (errno === codes.ENOENT || errno === codes.ECONNREFUSED) return 'none';
  if (errno === codes.EAGAIN) return 'full';
  const code = Object.entries(codes).find(([, value]) => value === errno)?.[0] ?? `E${errno}`;
  throw Object.assign(new Error(`connect: ${code} ${path}`), { code, errno: -errno, syscall: 'connect' });
}

/** Who made the other end (connect, or listen), as the kernel noted it then. */
export function peerCredentials(fd: number): Credentials {
  const value = Buffer.alloc(12);
  const length = Buffer.alloc(4);
  length.writeInt32LE(value.length);
  must('getsockopt', libc().getsockopt(fd, SOL_SOCKET, SO_PEERCRED, value, length));
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) };
}

/**
 * Sends all of `data` at once with the descriptors, which stay the caller's. `full`: the other side does not read (a part
 * may be on its way, so the connection is of no more use); `gone`: the other end is closed.
 */
export function sendStream(fd: number, data: Buffer, fds: readonly number[] = []): 'sent' | 'full' | 'gone' {
  const control = encodeRights(fds);
  const header = {
    msg_name: null,
    msg_namelen: 0,
    msg_iov: [{ iov_base: data, iov_len: data.length }],
    msg_iovlen: 1,
    msg_control: control,
    msg_controllen: control?.length ?? 0,
    msg_flags: 0,
  };
  const result = Number(libc().sendmsg(fd, header, MSG_DONTWAIT | MSG_NOSIGNAL));
  if (result >= 0) return result === data.length ? 'sent' : 'full';
  const errno = libc().koffi.errno();
  const codes = libc().koffi.os.errno;
  if (errno === codes.EAGAIN || errno === codes.ENOBUFS) return 'full';
  if (errno === codes.EPIPE || errno === codes.ECONNRESET) return 'gone';
  must('sendmsg', result);
  return 'gone';
}

/** What has arrived, or undefined when nothing has. Throws TOO_LARGE when descriptors had to be dropped. */
export function receiveStream(fd: number): Received | undefined {
  const data = Buffer.allocUnsafe(READ_BYTES);
  const control = controlRoom(MAX_FDS_A_MESSAGE);
  const header = {
    msg_name: null,
    msg_namelen: 0,
    msg_iov: [{ iov_base: data, iov_len: data.length }],
    msg_iovlen: 1,
    msg_control: control,
    msg_controllen: control.length,
    msg_flags: 0,
  };
  const result = Number(libc().recvmsg(fd, header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
  const got = check('recvmsg', result, 'EAGAIN', 'EINTR', 'ECONNRESET');
  if (got === undefined) {
    const reset = libc().koffi.errno() === libc().koffi.os.errno.ECONNRESET;
    return reset ? { data: Buffer.alloc(0), fds: [], ended: true } : undefined;
  }
  const fds = decodeRights(control.subarray(0, Number(header.msg_controllen)));
  if ((header.msg_flags & MSG_CTRUNC) !== 0) {
    for (const each of fds) closeSync(each);
    throw new SluiceError('TOO_LARGE', `expected at most ${MAX_FDS_A_MESSAGE} descriptors a message, found more`);
  }
  return { data: Buffer.from(data.subarray(0, got)), fds, ended: got === 0 };
}
