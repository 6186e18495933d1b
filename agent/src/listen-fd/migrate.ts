import { createServer, Server, type ServerOpts, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { SluiceError, toSluiceError } from '@sluice/contract';
import type { Log } from '../log.ts';
import { close as closeFd, dup } from '../native/fds.ts';
import { isSystemError } from '../native/libc.ts';
import { bindListen, normalAddress } from '../native/listen-socket.ts';
import { type Giving, type Listener, offerListeners } from './give.ts';
import { type ServerConnection, ServerDrain } from './server-drain.ts';
import { type Taking, takeWhenFree } from './take.ts';
import { stepAside, stepForward, type WarmUpAddress, warmUp } from './warm-up.ts';

export interface MigrateOptions {
  /** Path of the Unix socket over which one process takes over from another; at most 97 bytes. */
  readonly socket: string;
  /** What to accept on: `127.0.0.1:80`, `[::]:80`. */
  readonly addresses: readonly string[];
  /** Longest drain after a successor took over, ms; 0 = no bound. Default: ten minutes. */
  readonly maxDrainMs?: number;
  /** Over so many ms its connections are told to leave, the oldest first. Default: 2 s. */
  readonly tellOverMs?: number;
  /** Longest wait for the process that runs now to be done with another transfer, ms. Default: 30 s. */
  readonly boundMs?: number;
  /**
   * Sends requests to the server at `address`, before it takes over: with the first of them Node compiles and loads what
   * it needs. Some of its HTTP/1 connections are told to leave, as in a drain. What it throws is logged and keeps nobody
   * from serving.
   */
  readonly warmUp?: (address: WarmUpAddress) => Promise<void>;
  readonly log?: Log;
}

export interface DrainReport {
  /** False: the bound came first, and `left` would be cut by ending this process now. */
  readonly drained: boolean;
  readonly left: readonly ServerConnection[];
  readonly ms: number;
}

export interface Migration {
  /** The listen sockets came from a process that ran before. */
  readonly takenOver: boolean;
  /** A successor accepts, and this process does not any more; or `drain` was called. */
  readonly released: Promise<void>;
  /** Every connection has ended after that, or the bound is over. Then end the process. */
  readonly drained: Promise<DrainReport>;
  connections(): ServerConnection[];
  /** No successor will come (SIGTERM): stop accepting for good, and drain. */
  drain(): void;
}

/**
 * Makes `server` (http, https, http2, plain or secure, not listening yet) accept on `addresses`: on the listen sockets of the
 * process that serves them now, if one does, else on new ones. Resolves when it accepts and the other one does not. From
 * then on it offers them to its own successor; when one has taken over it stops accepting, tells its connections to leave
 * and counts them out.
 *
 * Throws when it can not serve, with the process that ran before untouched and accepting.
 */
export async function migrate(server: Server, options: MigrateOptions): Promise<Migration> {
  if (server.listening) throw new SluiceError('CONFIG_INVALID', 'expected a server that does not listen yet');
  const addresses = options.addresses.map(normalAddress);
  if (addresses.length === 0) throw new SluiceError('CONFIG_INVALID', 'expected an address to listen on, found none');
  const log = options.log ?? (() => {});
  const drain = new ServerDrain(server); // before the warm-up, which is for its code too
  if (options.warmUp !== undefined) {
    drain.rehearse(true);
    await warmUp(server, `${options.socket}-${process.pid}`, options.warmUp).catch((thrown) =>
      log('warn', 'listen-fd: not warmed up', { error: (thrown as Error).message }),
    );
    drain.rehearse(false);
  }
  stepForward();
  const { taking, listeners } = await socketsFor(addresses, options);
  const acceptors = new Acceptors(server, listeners);
  const migration = new Migrating(drain, acceptors, options, log);
  try {
    await acceptors.start();
    if (taking) await taking.accepting(() => migration.own());
    else await migration.own();
  } catch (thrown) {
    const { code, message } = toSluiceError(thrown);
    acceptors.stop();
    acceptors.forget();
    taking?.abandon({ code, message });
    throw thrown;
  }
  return migration.as(taking !== undefined);
}

/** The kernel lowers it to net.core.somaxconn. */
const BACKLOG = 4_096;
const BIND_ROUNDS = 5;

/** Those of a running process where they are wanted, the rest bound anew. */
async function socketsFor(
  addresses: readonly string[],
  { socket, boundMs = 30_000 }: MigrateOptions,
): Promise<{ taking: Taking | undefined; listeners: Listener[] }> {
  for (let round = 1; ; round++) {
    const taking = await takeWhenFree(socket, { wanted: (address) => addresses.includes(address), boundMs });
    const listeners = [...(taking?.listeners ?? [])];
    try {
      for (const address of addresses) {
        if (!listeners.some((one) => one.address === address)) listeners.push({ address, fd: bindListen(address) });
      }
      return { taking, listeners };
    } catch (thrown) {
      for (const { fd } of listeners) closeFd(fd);
      taking?.abandon({ code: 'LISTEN_FD_BROKEN', message: (thrown as Error).message });
      // Two that start at once: the other one has bound it, and will offer it in a moment.
      if (!taking && isSystemError(thrown, 'EADDRINUSE') && round < BIND_ROUNDS) await delay(50 * 2 ** round);
      else throw thrown;
    }
  }
}

/**
 * libuv accepts one connection of a descriptor in a turn of the loop (uv__server_io, libuv #3696): one whose turns
 * are long, because it has just begun, would let those wait that come back to it. So each socket is watched several times.
 */
const ACCEPTS_A_TURN = 8;

/** The server accepts on the first socket itself; all other times it is accepted for it. */
class Acceptors {
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

/** Of this process, those that are not drained yet. */
const running = new Set<Migrating>();

class Migrating {
  readonly #drain: ServerDrain;
  readonly #acceptors: Acceptors;
  readonly #options: MigrateOptions;
  readonly #log: Log;
  readonly #released = Promise.withResolvers<void>();
  readonly #drained = Promise.withResolvers<DrainReport>();
  #giving: Giving | undefined;
  #over = false;

  constructor(drain: ServerDrain, acceptors: Acceptors, options: MigrateOptions, log: Log) {
    this.#drain = drain;
    this.#acceptors = acceptors;
    this.#options = options;
    this.#log = log;
  }

  as(takenOver: boolean): Migration {
    running.add(this);
    return {
      takenOver,
      released: this.#released.promise,
      drained: this.#drained.promise,
      connections: () => this.#drain.connections(),
      drain: () => {
        if (this.#over) return;
        this.#acceptors.stop();
        this.#end();
      },
    };
  }

  async own(): Promise<void> {
    this.#giving = await offerListeners(
      this.#options.socket,
      {
        listeners: () => this.#acceptors.listeners,
        stop: () => this.#acceptors.stop(),
        resume: () => this.#acceptors.start(),
        released: () => this.#end(),
      },
      { log: this.#log },
    );
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    const { maxDrainMs = 600_000, tellOverMs = 2_000 } = this.#options;
    const begun = performance.now();
    this.#acceptors.forget();
    void this.#giving?.close();
    const report = (drained: boolean): DrainReport => {
      clearTimeout(timer);
      if (drained && running.delete(this) && running.size === 0) stepAside();
      const left = this.#drain.connections();
      return { drained, left, ms: Math.round(performance.now() - begun) };
    };
    const timer = maxDrainMs === 0 ? undefined : setTimeout(() => this.#drained.resolve(report(false)), maxDrainMs);
    this.#log('info', 'listen-fd: draining', { connections: this.#drain.size });
    void this.#drain
      .begin(maxDrainMs === 0 ? tellOverMs : Math.min(tellOverMs, maxDrainMs / 2))
      .then(() => this.#drained.resolve(report(true)));
    this.#released.resolve();
  }
}
