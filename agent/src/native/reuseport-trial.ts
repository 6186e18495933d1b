import { closeSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { libc, must } from './libc.ts';
import { steer, waiting } from './reuseport.ts';

const AF_INET = 2;
const SOCK_STREAM_CLOEXEC_NONBLOCK = 1 | 0o2000000 | 0o4000;
const SOL_SOCKET = 1;
const SO_REUSEPORT = 15;
const TRIES = 20;
const STEP_MS = 5;

let tried: Promise<string | undefined> | undefined;

/**
 * Whether this kernel lets us steer, and orders a group's sockets as native/reuseport.ts says: tried on three sockets of
 * our own on a loopback port that nobody knows, once. Undefined = yes; else what was found.
 */
export function whyNotSteer(): Promise<string | undefined> {
  tried ??= trial().catch((error: Error) => error.message);
  return tried;
}

async function trial(): Promise<string | undefined> {
  const open: number[] = [];
  const own = (fd: number) => {
    open.push(fd);
    return fd;
  };
  try {
    const first = own(listener(0));
    const port = portOf(first);
    const second = own(listener(port));
    const third = own(listener(port));
    steer(first, [2]);
    own(connectTo(port));
    if (!(await gets(third, 1))) return 'a new connection did not go to the socket that listened last';
    // The last one takes the place of the one that leaves.
    closeSync(open.shift() as number);
    steer(second, [0]);
    own(connectTo(port));
    return (await gets(third, 2)) ? undefined : 'the last socket did not take the place of the one that left';
  } finally {
    for (const fd of open) closeSync(fd);
  }
}

/** Over loopback the handshake is done within connect(); a few looks all the same. */
async function gets(fd: number, connections: number): Promise<boolean> {
  for (let i = 0; i < TRIES; i++) {
    if (waiting(fd) === connections) return true;
    await delay(STEP_MS);
  }
  return false;
}

function loopback(port: number): Buffer {
  const address = Buffer.alloc(16);
  address.writeUInt16LE(AF_INET, 0);
  address.writeUInt16BE(port, 2);
  address.set([127, 0, 0, 1], 4);
  return address;
}

function listener(port: number): number {
  const native = libc();
  const fd = must('socket', native.socket(AF_INET, SOCK_STREAM_CLOEXEC_NONBLOCK, 0));
  const on = Buffer.alloc(4);
  on.writeInt32LE(1);
  try {
    must('setsockopt', native.setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, on, 4));
    must('bind', native.bind(fd, loopback(port), 16));
    must('listen', native.listen(fd, 8));
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function portOf(fd: number): number {
  const address = Buffer.alloc(16);
  const length = Buffer.alloc(4);
  length.writeInt32LE(16);
  must('getsockname', libc().getsockname(fd, address, length));
  return address.readUInt16BE(2);
}

/** Non-blocking: a machine that drops packets on loopback must not hold us up. */
function connectTo(port: number): number {
  const native = libc();
  const fd = must('socket', native.socket(AF_INET, SOCK_STREAM_CLOEXEC_NONBLOCK, 0));
  native.connect(fd, loopback(port), 16);
  return fd;
}
