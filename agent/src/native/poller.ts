import { closeSync, readSync, writeSync } from 'node:fs';
import { libc, must } from './libc.ts';

/**
 * Waits for descriptors that libuv can not watch (AF_UNIX datagrams, pidfds): one poll(2) at a time on a thread of the
 * pool, for all watches together, ended early through an eventfd when the set of watches changes. There is no thread
 * and no descriptor while nothing is watched. A poll lasts at most MAX_WAIT_MS, because a process that exits waits for
 * the threads of its pool.
 */
const MAX_WAIT_MS = 200;
const POLLIN = 1;
const EFD_FLAGS = 0o2004000; // EFD_CLOEXEC | EFD_NONBLOCK
const ENTRY = 8;

export interface Watch {
  /**
   * No further call after this. The descriptor may be closed once it returns; what it stood for lives until the promise
   * resolves, because a poll(2) under way holds it (a name that was bound is not free before).
   */
  stop(): Promise<void>;
}

const watches = new Map<Watch, { fd: number; onReadable: () => void }>();
let wakeFd: number | undefined;
let polling = false;
/** End of the poll under way. */
let ended = Promise.resolve();

/** Calls `onReadable` whenever the descriptor is readable, hung up or in error, until stopped. It must read or stop. */
export function watchReadable(fd: number, onReadable: () => void): Watch {
  const watch: Watch = {
    stop() {
      if (watches.delete(watch)) wake();
      return ended;
    },
  };
  watches.set(watch, { fd, onReadable });
  if (polling) wake();
  else poll();
  return watch;
}

const ONE = Buffer.alloc(8);
ONE.writeBigUInt64LE(1n);

function wake(): void {
  if (wakeFd !== undefined) writeSync(wakeFd, ONE);
}

function poll(): void {
  const native = libc();
  wakeFd ??= must('eventfd', native.eventfd(0, EFD_FLAGS));
  const entries = [...watches];
  const set = Buffer.alloc(ENTRY * (entries.length + 1));
  set.writeInt32LE(wakeFd, 0);
  set.writeInt16LE(POLLIN, 4);
  for (const [i, [, { fd }]] of entries.entries()) {
    set.writeInt32LE(fd, ENTRY * (i + 1));
    set.writeInt16LE(POLLIN, ENTRY * (i + 1) + 4);
  }
  polling = true;
  const { promise, resolve } = Promise.withResolvers<void>();
  ended = promise;
  native.poll.async(set, entries.length + 1, MAX_WAIT_MS, () => {
    polling = false;
    resolve();
    if (set.readInt16LE(6) !== 0) drainWake();
    for (const [i, [watch, { onReadable }]] of entries.entries()) {
      if (set.readInt16LE(ENTRY * (i + 1) + 6) !== 0 && watches.has(watch)) onReadable();
    }
    // A callback may have begun the next poll by watching something more.
    if (polling) return;
    if (watches.size > 0) poll();
    else closeWake();
  });
}

function drainWake(): void {
  if (wakeFd !== undefined) readSync(wakeFd, Buffer.alloc(8));
}

function closeWake(): void {
  if (wakeFd !== undefined) closeSync(wakeFd);
  wakeFd = undefined;
}
