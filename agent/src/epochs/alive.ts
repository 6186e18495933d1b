import { constants, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { isAlive, type ProcessId } from './proc.ts';

export interface AliveWatch {
  /** Its descriptors close: nobody accepts any more on what it listened on. Some 10 ms, for a large process, before `gone`. */
  readonly closing: Promise<void>;
  /** It is dead: reaped, or a zombie. */
  readonly gone: Promise<void>;
  stop(): void;
}

/**
 * Resolves when the process that holds the write end of the FIFO is gone: an event, although Envoy is nobody's child.
 * Open it only after the writer has (launch() returned, or the process is adopted): without a writer it ends at once.
 */
export function watchAlive(fifo: string, owner: ProcessId): AliveWatch {
  let stop = () => {};
  const closing = Promise.withResolvers<void>();
  const gone = new Promise<void>((resolve) => {
    let fd: number;
    try {
      fd = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch {
      resolve(); // the folder is gone, and so is what ran in it
      return;
    }
    const socket = new Socket({ fd, readable: true, writable: false });
    socket.on('error', () => resolve());
    // The end of file comes a moment before the process is reaped; nobody must see a dead one alive after `gone`.
    socket.on('end', () => {
      closing.resolve();
      settle(owner, resolve);
    });
    socket.resume();
    stop = () => {
      socket.removeAllListeners();
      socket.on('error', () => {});
      socket.destroy();
    };
    if (!isAlive(owner)) {
      stop();
      resolve();
    }
  });
  void gone.then(closing.resolve);
  return { closing: closing.promise, gone, stop: () => stop() };
}

const SETTLE_MS = 2_000;

/** So long it takes as a rule, and the fresh Envoy waits for it; after that the looks get rarer. */
const SOON_MS = 50;

/** Descriptors close before a process is a zombie: a few looks, at most SETTLE_MS. */
function settle(owner: ProcessId, done: () => void, waited = 0, step = 1): void {
  if (waited >= SETTLE_MS || !isAlive(owner)) done();
  else {
    const next = waited < SOON_MS ? 1 : Math.min(step * 2, 100);
    setTimeout(() => settle(owner, done, waited + next, next), next);
  }
}
