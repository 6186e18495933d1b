import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { asOthers, letGoFirst } from '../native/sched.ts';

/** Set by behind.ts: a process of which that module was not loaded keeps what its user gave it. */
export const BEHIND = Symbol.for('sluice.listen-fd.behind');

/** Ends what behind.ts began. */
export function stepForward(): void {
  if (BEHIND in globalThis) asOthers(process.pid);
}

/**
 * Sends requests of the caller's own through `server` before it serves: code that has not run yet is several times as
 * slow, and all the load comes at once when a process takes over. `ask` is given the path of a Unix socket on which the
 * server answers. Meanwhile this process lets those go first that serve. Rejects as `ask` does.
 */
export async function warmUp(server: Server, path: string, ask: (path: string) => Promise<void>): Promise<void> {
  const door = createServer({ allowHalfOpen: true }, (socket: Socket) => server.emit('connection', socket));
  const sockets = new Set<Socket>();
  door.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    door.once('error', reject);
    door.listen(path, resolve);
  });
  letGoFirst(process.pid);
  try {
    await ask(path);
  } finally {
    asOthers(process.pid);
    for (const socket of sockets) socket.destroy();
    door.close();
    rmSync(path, { force: true });
  }
}
