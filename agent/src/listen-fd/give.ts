import { chmodSync, renameSync, statSync, unlinkSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { SluiceError, toSluiceError } from '@sluice/contract';
import type { Log } from '../log.ts';
import { close as closeFd, dup } from '../native/fds.ts';
import { MAX_FDS_A_MESSAGE, sendStream } from '../native/unix-stream.ts';
import { checkPeer, FdChannel } from './channel.ts';
import { MAX_LISTENERS, type Message, refusal } from './messages.ts';
import { type OldEffect, type OldEvent, type OldState, oldSide, stepOld } from './old-side.ts';

export interface Listener {
  /** `127.0.0.1:80`, `[::1]:80`, or a Unix socket's path. */
  readonly address: string;
  readonly fd: number;
}

/** Longest time in each phase, ms. */
export const OLD_BOUNDS: Readonly<Record<Exclude<OldState['phase'], 'done' | 'failed'>, number>> = {
  hello: 5_000,
  take: 5_000,
  // The successor starts to serve: it may load a configuration first.
  accepting: 120_000,
  stopping: 30_000,
  released: 10_000,
};

export interface Giver {
  /** What is offered, at this moment. The descriptors stay the giver's. */
  listeners(): readonly Listener[];
  /** Accept no more, without closing what waits in the queues: the successor has the same sockets. */
  stop(): void | Promise<void>;
  /** Accept again: the successor went before the transfer was over. */
  resume(): void | Promise<void>;
  /** The successor accepts, and this side does not: time to drain. */
  released(): void;
}

export interface Giving {
  /** Of the socket; the file is removed if it is still ours. */
  close(): Promise<void>;
}

/**
 * Offers the listen sockets to a successor that connects to `path`. One transfer at a time; another one is refused
 * meanwhile. The socket is put in place by rename, so that there is one at each moment, and belongs to its user alone.
 */
export async function offerListeners(
  path: string,
  giver: Giver,
  options: { readonly log: Log; readonly bounds?: Partial<typeof OLD_BOUNDS> },
): Promise<Giving> {
  const { log } = options;
  if (giver.listeners().length > MAX_LISTENERS) {
    throw new SluiceError(
      'TOO_LARGE',
      `expected at most ${MAX_LISTENERS} listen sockets, found ${giver.listeners().length}`,
    );
  }
  const bounds = { ...OLD_BOUNDS, ...options.bounds };
  let running: Transfer | undefined;
  let over = false;
  // Node's socket is only a doorbell: it carries no descriptors, so the transfer goes over a dup of it.
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    const fd = rawFd(socket);
    socket.on('error', () => {});
    socket.destroy();
    try {
      checkPeer(fd);
      if (running !== undefined || over) {
        throw new SluiceError(
          'UPGRADE_CONFLICT',
          `expected no transfer under way, found one that ${over ? 'is over' : 'runs'}`,
        );
      }
    } catch (thrown) {
      const { code, message } = toSluiceError(thrown);
      log('warn', 'listen-fd: refused', { code, error: message });
      sendStream(fd, Buffer.from(`${JSON.stringify(refusal(code, message))}\n`));
      return closeFd(fd);
    }
    running = new Transfer(fd, giver, bounds, log, (released) => {
      running = undefined;
      over = released;
      if (released) {
        log('info', 'listen-fd: released');
        giver.released();
      }
    });
  });
  server.maxConnections = 16;
  const own = `${path}.${process.pid}`;
  await new Promise<void>((resolve, reject) => {
    if (Buffer.byteLength(own) > 107) {
      throw new SluiceError('CONFIG_INVALID', `expected a socket path of at most 97 bytes, found ${path}`);
    }
    const umask = process.umask(0o177);
    try {
      server.once('error', reject).listen(own, resolve);
    } finally {
      process.umask(umask);
    }
  });
  chmodSync(own, 0o600);
  const { ino } = statSync(own);
  renameSync(own, path);
  return {
    async close() {
      running?.abandon();
      try {
        if (statSync(path).ino === ino) unlinkSync(path);
      } catch {
        // A successor's, or removed already.
      }
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function rawFd(socket: Socket): number {
  const fd = (socket as unknown as { _handle?: { fd?: unknown } })._handle?.fd;
  if (typeof fd !== 'number' || fd < 0) throw new SluiceError('INTERNAL', 'expected a socket with a descriptor');
  return dup(fd);
}

/** One connection, driven by the rules of old-side.ts. */
class Transfer {
  readonly #giver: Giver;
  readonly #bounds: typeof OLD_BOUNDS;
  readonly #log: Log;
  readonly #onEnd: (released: boolean) => void;
  readonly #channel: FdChannel;
  readonly #listeners: readonly Listener[];
  #state: OldState;
  #timer: NodeJS.Timeout | undefined;

  constructor(fd: number, giver: Giver, bounds: typeof OLD_BOUNDS, log: Log, onEnd: (released: boolean) => void) {
    this.#giver = giver;
    this.#bounds = bounds;
    this.#log = log;
    this.#onEnd = onEnd;
    this.#listeners = giver.listeners();
    this.#state = oldSide(this.#listeners.map(({ address }) => address));
    this.#channel = new FdChannel(fd, {
      message: (message, fds) => this.#onMessage(message, fds),
      mishap: (mishap) => this.#step(mishap),
    });
    this.#arm();
  }

  abandon(): void {
    this.#step({ type: 'broken', trouble: { code: 'LISTEN_FD_BROKEN', message: 'this process ends' } });
  }

  /** This side takes no descriptors: whatever comes is closed. */
  #onMessage(message: Message, fds: number[]): void {
    if (fds.length === 0) {
      this.#step({ type: 'message', message });
      return;
    }
    for (const fd of fds) closeFd(fd);
    const found = `expected no descriptor with ${message.type}, found ${fds.length}`;
    this.#step({ type: 'broken', trouble: { code: 'INPUT_INVALID', message: found } });
  }

  #step(event: OldEvent): void {
    const before = this.#state.phase;
    const { state, effects } = stepOld(this.#state, event);
    this.#state = state;
    if (state.phase !== before) this.#arm();
    for (const effect of effects) this.#do(effect);
  }

  #do(effect: OldEffect): void {
    switch (effect.type) {
      case 'send':
        this.#channel.send(effect.message);
        return;
      case 'send-fds':
        for (let from = 0; from < effect.listeners.length; from += MAX_FDS_A_MESSAGE) {
          const listeners = effect.listeners.slice(from, from + MAX_FDS_A_MESSAGE);
          const fds = listeners.map((n) => (this.#listeners[n] as Listener).fd);
          if (!this.#channel.send({ type: 'fds', listeners }, fds)) return;
        }
        return;
      case 'stop':
        void this.#call(
          'stop',
          () => this.#giver.stop(),
          () => this.#step({ type: 'stopped' }),
        );
        return;
      case 'resume':
        void this.#call('resume', () => this.#giver.resume());
        return;
      case 'end':
        clearTimeout(this.#timer);
        this.#channel.close();
        if (this.#state.trouble) {
          const { code, message } = this.#state.trouble;
          this.#log('warn', 'listen-fd: transfer not finished; this process accepts', { code, error: message });
        }
        this.#onEnd(this.#state.phase === 'done');
    }
  }

  async #call(what: string, action: () => void | Promise<void>, then?: () => void): Promise<void> {
    try {
      await action();
    } catch (thrown) {
      const { code, message } = toSluiceError(thrown);
      this.#log('error', `listen-fd: ${what} failed`, { code, error: message });
      this.#step({ type: 'broken', trouble: { code, message } });
      return;
    }
    then?.();
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const { phase } = this.#state;
    if (phase === 'done' || phase === 'failed') return;
    this.#timer = setTimeout(() => this.#step({ type: 'timeout' }), this.#bounds[phase]).unref();
  }
}
