import { createServer, Server, type ServerOpts, type Socket } from 'node:net';
import { close as closeFd, dup } from '../native/fds.ts';
import type { Listener } from './give.ts';

/** The kernel lowers it to net.core.somaxconn. */
const BACKLOG = 4_096;

/**
 * libuv accepts one connection of a descriptor in a turn of the loop (uv__server_io, libuv #3696): one whose turns
 * are long, because it has just begun, would let those wait that come back to it. So each socket is watched several times.
 */
const ACCEPTS_A_TURN = 8;

/** Of one server: it accepts on the first socket itself; all other times it is accepted for it. */
export class Acceptors {
  readonly listeners: readonly Listener[];
  readonly #server: Server;
  #running: Server[] = [];

  constructor(server: Server, listeners: readonly Listener[]) {
    this.#server = server;
    this.listeners = listeners;
  }

  async start(): Promise<void> {
    // What Node counts for maxConnections is what the server itself accepts.
    const times = this.#server.maxConnections === undefined ? ACCEPTS_A_TURN : 1;
    const watched = this.listeners.flatMap((listener) => Array.from({ length: times }, () => listener));
    for (const [i, { fd }] of watched.entries()) {
      const acceptor = i === 0 ? this.#server : this.#further();
      this.#running.push(acceptor);
      await new Promise<void>((resolve, reject) => {
        acceptor.once('error', reject);
        // listen(2) again sets the length of the queue anew. Node reads no `backlog` of the options beside a descriptor.
        acceptor.listen({ fd: dup(fd) }, BACKLOG, () => {
          acceptor.off('error', reject);
          resolve();
        });
      });
    }
  }

  /**
   * Accepts no more, from this moment on. Only this process's descriptor is closed: what waits in the queue is the
   * successor's. Node hands over each connection in the turn it accepts it, so none is in between. Not `server.close()`:
   * that of an HTTP server closes idle connections too, and may meet a request on its way.
   */
  stop(): void {
    for (const acceptor of this.#running.splice(0)) {
      if (acceptor.listening) Server.prototype.close.call(acceptor, () => {});
    }
  }

  /** The sockets belong to the successor alone now. */
  forget(): void {
    for (const { fd } of this.listeners) closeFd(fd);
  }

  /** Its sockets are as the server's own (lib/net.js, the options of Server). */
  #further(): Server {
    const { noDelay, keepAlive, keepAliveInitialDelay, highWaterMark, allowHalfOpen, pauseOnConnect } = this
      .#server as unknown as ServerOpts;
    const options = { noDelay, keepAlive, keepAliveInitialDelay, highWaterMark, allowHalfOpen, pauseOnConnect };
    return createServer(options as ServerOpts, (socket: Socket) => this.#server.emit('connection', socket));
  }
}
