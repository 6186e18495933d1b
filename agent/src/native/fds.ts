import { closeSync, fstatSync } from 'node:fs';
import { check, isSystemError, libc, must } from './libc.ts';

const F_DUPFD_CLOEXEC = 1030;
const F_GETFD = 1;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;
// The numbers of these two are the same on every architecture of Linux.
const SYS_PIDFD_OPEN = 434;
const SYS_PIDFD_GETFD = 438;
const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_REUSEPORT = 15;
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

/** Undoes O_NONBLOCK, on the open file that others may share. A descriptor that is not open stays so. */
export function setBlocking(fd: number): void {
  const flags = check('fcntl', libc().fcntl(fd, F_GETFL, 0), 'EBADF');
  if (flags !== undefined) must('fcntl', libc().fcntl(fd, F_SETFL, flags & ~O_NONBLOCK));
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

/** Is this a stream socket that listens? Of anything else, sockets or not: no. */
export function isListening(fd: number): boolean {
  try {
    return intOption(fd, SO_TYPE) === 1 && intOption(fd, SO_ACCEPTCONN) === 1;
  } catch (error) {
    if (isSystemError(error, 'ENOTSOCK')) return false;
    throw error;
  }
}

/** Was SO_REUSEPORT set? Envoy sets it exactly when each worker has a socket of its own. */
export function hasReusePort(fd: number): boolean {
  return intOption(fd, SO_REUSEPORT) === 1;
}

/** A named pipe for its owner alone; an existing one is kept. */
export function makeFifo(path: string): void {
  check('mkfifo', libc().mkfifo(path, 0o600), 'EEXIST');
}
