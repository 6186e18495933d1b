import { statSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { SluiceError } from '@sluice/contract';

export interface Lock {
  release(): Promise<void>;
}

const ASK_MS = 1_000;

/**
 * Takes `name` within `folder` for this process. The lock is a listening socket of the abstract namespace, named by the
 * folder's device and inode: the kernel gives it to one process only, and takes it back at the process's death, so there is
 * no stale lock and no race over one. (Two containers of a Pod share the network namespace that the name lives in, and see
 * the same inode under whatever path.) Throws SLOT_TAKEN with the pid of the holder.
 */
export async function takeLock(folder: string, name: string): Promise<Lock> {
  const { dev, ino } = statSync(folder, { bigint: true });
  const address = `\0sluice-lock-${dev.toString(36)}-${ino.toString(36)}-${name}`;
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.end(`${process.pid}`);
  });
  server.maxConnections = 8;
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ path: address }, () => {
        server.off('error', reject);
        resolve();
      });
    });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw cause;
    const holder = await ask(address);
    throw new SluiceError(
      'SLOT_TAKEN',
      `expected ${folder} to be free for ${name}, found that process ${holder} has it`,
      {
        cause,
      },
    );
  }
  server.unref();
  return { release: () => new Promise((resolve) => server.close(() => resolve())) };
}

function ask(address: string): Promise<string> {
  return new Promise((resolve) => {
    let said = '';
    const socket = connect({ path: address });
    const done = (): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(/^\d{1,10}$/.test(said) ? said : 'unknown');
    };
    const timer = setTimeout(done, ASK_MS);
    socket.on('data', (chunk) => {
      said = (said + chunk.toString('latin1')).slice(0, 32);
    });
    socket.on('end', done);
    socket.on('error', done);
  });
}
