import { chmodSync, unlinkSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { basename, dirname } from 'node:path';
import { SluiceError } from '@sluice/contract';
import { takeLock } from '../handoff/lock.ts';

const PROBE_MS = 1_000;

/**
 * Listens on a Unix socket that only its owner may use. The file of a listener that died is replaced; one that is alive is
 * another agent's: SLOT_TAKEN. Its lock, held until the server closes, tells two apart that start at the same moment; the
 * probe finds one in another network namespace, where the lock's name is not seen.
 */
export async function listenOnSocket(server: Server, path: string): Promise<void> {
  // sun_path has 108 bytes; a longer path would be cut without a word.
  if (Buffer.byteLength(path) > 107) {
    throw new SluiceError('CONFIG_INVALID', `expected a socket path of at most 107 bytes, found ${path}`, {
      hint: 'choose a run folder with a shorter path',
    });
  }
  const lock = await takeLock(dirname(path), basename(path));
  try {
    if (await answers(path)) {
      throw new SluiceError('SLOT_TAKEN', `expected ${path} to be free, found an agent that listens on it`);
    }
    removeSocket(path);
    await listen(server, path);
  } catch (thrown) {
    await lock.release();
    throw thrown;
  }
  server.once('close', () => void lock.release());
}

async function listen(server: Server, path: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    // The socket file gets its mode from the umask: nobody else can connect between bind and chmod.
    const umask = process.umask(0o177);
    try {
      server.listen(path, () => {
        server.off('error', reject);
        resolve();
      });
    } finally {
      process.umask(umask);
    }
  });
  chmodSync(path, 0o600);
}

export function removeSocket(path: string): void {
  try {
    unlinkSync(path);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') throw thrown;
  }
}

/** Whether somebody listens there. One that is too busy to accept within a second counts as there. */
export function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const settle = (there: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(there);
    };
    const timer = setTimeout(() => settle(true), PROBE_MS);
    socket.once('connect', () => settle(true));
    socket.once('error', (error: NodeJS.ErrnoException) => settle(error.code === 'EAGAIN'));
  });
}
