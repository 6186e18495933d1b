import { createHash } from 'node:crypto';
import { access, constants, mkdir } from 'node:fs/promises';
import net from 'node:net';
import { homedir } from 'node:os';
import path from 'node:path';

/** Where the parts of Kubernetes lie, once built: `<cache>/k8s/<name>-<version>/`. SLUICE_CACHE names another cache. */
export function k8sCacheDir(env: NodeJS.ProcessEnv = process.env): string {
  const base = env.SLUICE_CACHE ?? path.join(env.XDG_CACHE_HOME ?? path.join(homedir(), '.cache'), 'sluice');
  return path.join(base, 'k8s');
}

export async function exists(file: string, mode: number = constants.X_OK): Promise<boolean> {
  try {
    await access(file, mode);
    return true;
  } catch {
    return false;
  }
}

/**
 * Runs `work` while no other process on this machine works on that folder. The lock is an abstract Unix socket: the kernel frees
 * it when its holder dies, and who waits sees its connection to the holder end.
 */
export async function locked<T>(dir: string, work: () => Promise<T>): Promise<T> {
  await mkdir(dir, { recursive: true });
  const name = `\0sluice-k8s-${createHash('sha256').update(path.resolve(dir)).digest('hex').slice(0, 24)}`;
  for (;;) {
    const lock = await bind(name);
    if (lock === undefined) {
      await ended(name);
      continue;
    }
    try {
      return await work();
    } finally {
      for (const socket of lock.waiting) socket.destroy();
      await new Promise((resolve) => lock.server.close(resolve));
    }
  }
}

interface Lock {
  readonly server: net.Server;
  readonly waiting: Set<net.Socket>;
}

function bind(name: string): Promise<Lock | undefined> {
  return new Promise((resolve, reject) => {
    const waiting = new Set<net.Socket>();
    const server = net.createServer((socket) => {
      waiting.add(socket);
      socket.on('error', () => socket.destroy()).once('close', () => waiting.delete(socket));
    });
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? resolve(undefined) : reject(error),
    );
    server.listen(name, () => resolve({ server, waiting }));
  });
}

/** Resolves when the holder has let go, or died. */
function ended(name: string): Promise<void> {
  return new Promise((resolve) => {
    const socket = net.connect(name);
    socket.on('error', () => undefined).once('close', () => resolve());
  });
}
