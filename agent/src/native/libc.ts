import { createRequire } from 'node:module';
import type koffiModule from 'koffi';

/**
 * The few calls of the C library that Node has no API for, bound lazily: the first use loads koffi, nothing else does.
 * Linux only, 64 bit. Every call that fails throws an Error with `code`, `errno` and `syscall`, as Node's own do.
 */
export type Koffi = typeof koffiModule;
type Native = ReturnType<typeof bind>;

let bound: Native | undefined;

export function libc(): Native {
  bound ??= bind(createRequire(import.meta.url)('koffi') as Koffi);
  return bound;
}

function bind(koffi: Koffi) {
  // The process itself: its C library is loaded already, glibc or musl alike.
  const lib = koffi.load(null);
  const iovec = koffi.struct({ iov_base: 'void *', iov_len: 'size_t' });
  const msghdr = koffi.struct({
    msg_name: 'void *',
    msg_namelen: 'uint32',
    msg_iov: koffi.pointer(iovec),
    msg_iovlen: 'size_t',
    msg_control: 'void *',
    msg_controllen: 'size_t',
    msg_flags: 'int',
  });
  return {
    koffi,
    socket: lib.func('socket', 'int', ['int', 'int', 'int']),
    bind: lib.func('bind', 'int', ['int', 'void *', 'uint32']),
    connect: lib.func('connect', 'int', ['int', 'void *', 'uint32']),
    getsockname: lib.func('getsockname', 'int', ['int', 'void *', 'void *']),
    sendmsg: lib.func('sendmsg', 'long', ['int', koffi.pointer(msghdr), 'int']),
    recvmsg: lib.func('recvmsg', 'long', ['int', koffi.inout(koffi.pointer(msghdr)), 'int']),
    listen: lib.func('listen', 'int', ['int', 'int']),
    setsockopt: lib.func('setsockopt', 'int', ['int', 'int', 'int', 'void *', 'uint32']),
    getsockopt: lib.func('getsockopt', 'int', ['int', 'int', 'int', 'void *', 'void *']),
    poll: lib.func('poll', 'int', ['void *', 'ulong', 'int']),
    eventfd: lib.func('eventfd', 'int', ['uint', 'int']),
    // Variadic in C; on x86-64 and arm64 Linux integer arguments travel in registers either way.
    fcntl: lib.func('fcntl', 'int', ['int', 'int', 'long']),
    prctl: lib.func('prctl', 'int', ['int', 'ulong', 'ulong', 'ulong', 'ulong']),
    syscall: lib.func('syscall', 'long', ['long', 'long', 'long', 'long']),
    syscallPointer: lib.func('syscall', 'long', ['long', 'long', 'void *', 'long']),
    shutdown: lib.func('shutdown', 'int', ['int', 'int']),
    signal: lib.func('signal', 'void *', ['int', 'long']),
    mkfifo: lib.func('mkfifo', 'int', ['str', 'uint32']),
    execve: lib.func('execve', 'int', ['str', 'str *', 'str *']),
  };
}

/** An Error of the shape that Node gives for a failed system call. */
export interface SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
}

/** `result` of a call that returns -1 on failure; throws then. `allowed`: codes for which undefined is returned instead. */
export function check(syscall: string, result: number, ...allowed: string[]): number | undefined {
  if (result >= 0) return result;
  const { koffi } = libc();
  const errno = koffi.errno();
  const code = Object.entries(koffi.os.errno).find(([, value]) => value === errno)?.[0] ?? `E${errno}`;
  if (allowed.includes(code)) return undefined;
  throw Object.assign(new Error(`${syscall}: ${code}`), { code, errno: -errno, syscall }) satisfies SystemError;
}

/** For a call whose failure always throws. */
export function must(syscall: string, result: number): number {
  return check(syscall, result) as number;
}

export function isSystemError(thrown: unknown, ...codes: string[]): thrown is SystemError {
  return thrown instanceof Error && 'syscall' in thrown && codes.includes((thrown as SystemError).code);
}
