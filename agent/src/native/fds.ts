import { closeSync, fstatSync } from 'node:fs';
import { check, libc, must } from './libc.ts';

const F_DUPFD_CLOEXEC = 1030;
const F_GETFD = 1;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
// The numbers of these two are the same on every architecture of Linux.
const SYS_PIDFD_OPEN = 434;
const SYS_PIDFD_GETFD = 438;
const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_ACCEPTCONN = 30;

/** A second descriptor of the same open file, closed on exec. */
export function dup(fd: number): number {
  return must('fcntl', libc().fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

/** Closes a descriptor that nothing else owns. A descriptor that is closed already is a fault of ours and throws. */
export function close(fd: number): void {
  closeSync(fd);
}

/** Whether the descriptor is inherited by what this process executes. */
export function setInherited(fd: number, inherited: boolean): void {
  const flags = must('fcntl', libc().fcntl(fd, F_GETFD, 0));
  must('fcntl', libc().fcntl(fd, F_SETFD, inherited ? flags & ~FD_CLOEXEC : flags | FD_CLOEXEC));
}

/** Socket inode, as in `socket:[INODE]` under /proc. Two descriptors of one socket have the same. */
export function inode(fd: number): number {
  return fstatSync(fd).ino;
}

/** A descriptor that becomes readable when the process ends; undefined when there is no such process. */
export function pidfdOpen(pid: number): number | undefined {
  return check('pidfd_open', libc().syscall(SYS_PIDFD_OPEN, pid, 0, 0), 'ESRCH');
}

/** A dup of descriptor `fd` of another process. Throws EPERM where ptrace of that process is not permitted, EBADF, ESRCH. */
export function pidfdGetfd(pidfd: number, fd: number): number {
  return must('pidfd_getfd', libc().syscall(SYS_PIDFD_GETFD, pidfd, fd, 0));
}

function intOption(fd: number, option: number): number {
  const value = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  length.writeInt32LE(4);
  must('getsockopt', libc().getsockopt(fd, SOL_SOCKET, option, value, length));
  return value.readInt32LE();
}

/** Is this a stream socket that listens? */
export function isListening(fd: number): boolean {
  return intOption(fd, SO_TYPE) === 1 && intOption(fd, SO_ACCEPTCONN) === 1;
}

const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;

/** Local address of a TCP or Unix listen socket as Envoy writes it: `tcp://1.2.3.4:80`, `tcp://[::1]:80`, `unix:///path`. */
export function localAddress(fd: number): string {
  const address = Buffer.alloc(128);
  const length = Buffer.alloc(4);
  length.writeInt32LE(address.length);
  must('getsockname', libc().getsockname(fd, address, length));
  const family = address.readUInt16LE(0);
  if (family === AF_INET) return `tcp://${address.subarray(4, 8).join('.')}:${address.readUInt16BE(2)}`;
  if (family === AF_INET6) {
    const groups = Array.from({ length: 8 }, (_, i) => address.readUInt16BE(8 + 2 * i).toString(16));
    return `tcp://${new URL(`tcp://[${groups.join(':')}]`).hostname}:${address.readUInt16BE(2)}`;
  }
  if (family === AF_UNIX) {
    const path = address.subarray(2, length.readInt32LE()).toString('latin1');
    return `unix://${path.startsWith('\0') ? `@${path.slice(1).replace(/\0+$/, '')}` : path.replace(/\0.*$/s, '')}`;
  }
  return `family-${family}://`;
}
