import type { Server } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { SluiceError, toSluiceError } from '@sluice/contract';
import type { Log } from '../log.ts';
import { close as closeFd } from '../native/fds.ts';
import { isSystemError } from '../native/libc.ts';
import { bindListen, normalAddress } from '../native/listen-socket.ts';
import { Acceptors } from './acceptors.ts';
import { type Giving, type Listener, offerListeners } from './give.ts';
import { type ServerConnection, ServerDrain } from './server-drain.ts';
import { type Taking, takeWhenFree } from './take.ts';
import { stepAside, stepForward, type WarmUpAddress, warmUp } from './warm-up.ts';

export interface MigrateOptions {
  /** Path of the Unix socket over which one process takes over from another; at most 97 bytes. */
  readonly socket: string;
  /** Longest drain after a successor took over, ms; 0 = no bound. Default: ten minutes. */
  readonly maxDrainMs?: number;
  /** Over so many ms the connections of each server are told to leave, the oldest first. Default: 2 s. */
  readonly tellOverMs?: number;
  /** Longest wait for the process that runs now to be done with another transfer, ms. Default: 30 s. */
  readonly boundMs?: number;
  readonly log?: Log;
}

/** Where a server accepts, and how it gets ready for that. */
export interface Place {
  /** `127.0.0.1:80`, `[::]:80`. */
  readonly addresses: readonly string[];
  /**
   * Sends requests to the server at `address`, before it takes over: with the first of them Node compiles and loads what
   * it needs. Some of its HTTP/1 connections are told to leave, as in a drain. What it throws is logged and keeps nobody
   * from serving.
   */
  readonly warmUp?: (address: WarmUpAddress) => Promise<void>;
}

/** http, https, http2, plain or secure; it does not listen yet. */
export interface ServerAt extends Place {
  readonly server: Server;
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
 * Makes each server accept on its addresses: on the listen sockets of the process that serves them now, if one does, else on
 * new ones. All of them change hands at once, or none. Resolves when this process accepts and the other one does not. From
 * then on it offers them to its own successor; when one has taken over it stops accepting, tells its connections to leave
 * and counts them out.
 *
 * Throws when it can not serve, with the process that ran before untouched and accepting.
 */
export function migrate(server: Server, options: MigrateOptions & Place): Promise<Migration>;
export function migrate(servers: readonly ServerAt[], options: MigrateOptions): Promise<Migration>;
export async function migrate(
  what: Server | readonly ServerAt[],
  options: MigrateOptions & Partial<Place>,
): Promise<Migration> {
  const servers = checked(
    'listen' in what ? [{ server: what, addresses: options.addresses ?? [], ...warmUpOf(options) }] : what,
  );
  const log = options.log ?? (() => {});
  // Before the warm-up, which is for its code too.
  const drains = servers.map(({ server }) => new ServerDrain(server));
  const cold = servers.flatMap(({ server, warmUp: ask }) => (ask === undefined ? [] : [{ server, ask }]));
  if (cold.length > 0) {
    for (const drain of drains) drain.rehearse(true);
    for (const error of await warmUp(cold, `${options.socket}-${process.pid}`)) {
      log('warn', 'listen-fd: not warmed up', { error: error.message });
    }
    for (const drain of drains) drain.rehearse(false);
  }
  stepForward();
  const { taking, listeners } = await socketsFor(
    servers.flatMap(({ addresses }) => addresses),
    options,
  );
  const acceptors = servers.map(
    ({ server, addresses }) =>
      new Acceptors(
        server,
        listeners.filter(({ address }) => addresses.includes(address)),
      ),
  );
  const migration = new Migrating(drains, acceptors, options, log);
  try {
    for (const each of acceptors) await each.start();
    if (taking) await taking.accepting(() => migration.own());
    else await migration.own();
  } catch (thrown) {
    const { code, message } = toSluiceError(thrown);
    for (const each of acceptors) {
      each.stop();
      each.forget();
    }
    taking?.abandon({ code, message });
    throw thrown;
  }
  return migration.as(taking !== undefined);
}

function warmUpOf({ warmUp: ask }: Partial<Place>): Pick<Place, 'warmUp'> {
  return ask === undefined ? {} : { warmUp: ask };
}

/** With their addresses as the kernel would say them. Throws CONFIG_INVALID. */
function checked(servers: readonly ServerAt[]): readonly ServerAt[] {
  const all = new Set<string>();
  const normal = servers.map((one) => ({ ...one, addresses: one.addresses.map(normalAddress) }));
  for (const { server, addresses } of normal) {
    if (server.listening) throw new SluiceError('CONFIG_INVALID', 'expected a server that does not listen yet');
    if (addresses.length === 0) throw new SluiceError('CONFIG_INVALID', 'expected an address to listen on, found none');
    for (const address of addresses) {
      if (all.has(address))
        throw new SluiceError('CONFIG_INVALID', `expected each address once, found ${address} twice`);
      all.add(address);
    }
  }
  if (all.size === 0) throw new SluiceError('CONFIG_INVALID', 'expected a server, found none');
  return normal;
}

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

/** Of this process, those that are not drained yet. */
const running = new Set<Migrating>();

class Migrating {
  readonly #drains: readonly ServerDrain[];
  readonly #acceptors: readonly Acceptors[];
  readonly #options: MigrateOptions;
  readonly #log: Log;
  readonly #released = Promise.withResolvers<void>();
  readonly #drained = Promise.withResolvers<DrainReport>();
  #giving: Giving | undefined;
  #over = false;

  constructor(drains: readonly ServerDrain[], acceptors: readonly Acceptors[], options: MigrateOptions, log: Log) {
    this.#drains = drains;
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
      connections: () => this.#connections(),
      drain: () => {
        if (this.#over) return;
        this.#stop();
        this.#end();
      },
    };
  }

  async own(): Promise<void> {
    this.#giving = await offerListeners(
      this.#options.socket,
      {
        listeners: () => this.#acceptors.flatMap(({ listeners }) => listeners),
        stop: () => this.#stop(),
        resume: async () => {
          for (const each of this.#acceptors) await each.start();
        },
        released: () => this.#end(),
      },
      { log: this.#log },
    );
  }

  #connections(): ServerConnection[] {
    return this.#drains.flatMap((drain) => drain.connections());
  }

  #stop(): void {
    for (const each of this.#acceptors) each.stop();
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    const { maxDrainMs = 600_000, tellOverMs = 2_000 } = this.#options;
    const begun = performance.now();
    for (const each of this.#acceptors) each.forget();
    void this.#giving?.close();
    const report = (drained: boolean): DrainReport => {
      clearTimeout(timer);
      if (drained && running.delete(this) && running.size === 0) stepAside();
      return { drained, left: this.#connections(), ms: Math.round(performance.now() - begun) };
    };
    const timer = maxDrainMs === 0 ? undefined : setTimeout(() => this.#drained.resolve(report(false)), maxDrainMs);
    this.#log('info', 'listen-fd: draining', { connections: this.#connections().length });
    const tellMs = maxDrainMs === 0 ? tellOverMs : Math.min(tellOverMs, maxDrainMs / 2);
    void Promise.all(this.#drains.map((drain) => drain.begin(tellMs))).then(() => this.#drained.resolve(report(true)));
    this.#released.resolve();
  }
}
