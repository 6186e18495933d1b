import { SluiceError } from '@sluice/contract';
import { bindDatagram, receive, send } from '../native/datagram.ts';
import { close } from '../native/fds.ts';
import { isSystemError } from '../native/libc.ts';
import { type Watch, watchReadable } from '../native/poller.ts';
import type { Assembler } from './wire.ts';

/** How long a full queue is left alone; a datagram socket can not be polled for room in another's queue. */
const RETRY_MS = 2;

export interface ChannelEvents {
  /** The descriptors are the handler's: it closes them. */
  onDatagram(data: Buffer, fds: number[]): void;
  /** Nobody holds the peer's name any more. */
  onGone(): void;
  /** A system call failed, or a datagram can not be used. */
  onError(error: unknown): void;
}

interface Outgoing {
  readonly data: Buffer;
  /** Owned; closed once sent. */
  readonly fds: readonly number[];
}

/** Longer than Envoy's 10 repetitions, a second apart, of an answer that finds nobody. */
const RETIRE_MS = 15_000;
/** Names that are not free yet: an answer that nobody wants any more is waited for, or a poll(2) holds the socket. */
const retiring = new Map<string, Promise<void>>();

/** Resolves when no channel that retires or was closed holds the name (RETIRE_MS at most). */
export async function untilFree(name: string): Promise<void> {
  for (let held = retiring.get(name); held !== undefined; held = retiring.get(name)) await held;
}

function holding(name: string, until: Promise<void>): void {
  const held = until.then(() => {
    if (retiring.get(name) === held) retiring.delete(name);
  });
  retiring.set(name, held);
}

/** One bound name that talks to one other name, in order and without ever blocking. */
export class Channel {
  readonly #fd: number;
  readonly #watch: Watch;
  readonly #own: string;
  readonly #peer: string;
  #events: ChannelEvents;
  readonly #queue: Outgoing[] = [];
  #retry: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(own: string, peer: string, events: ChannelEvents) {
    this.#own = own;
    this.#peer = peer;
    this.#events = events;
    try {
      this.#fd = bindDatagram(own);
    } catch (error) {
      if (!isSystemError(error, 'EADDRINUSE')) throw error;
      throw new SluiceError('UPGRADE_CONFLICT', `expected the name @${own} to be free, found it bound`, {
        cause: error,
      });
    }
    this.#watch = watchReadable(this.#fd, () => this.#read());
  }

  /** Datagrams that the peer has had no room for yet. */
  get backlog(): number {
    return this.#queue.length;
  }

  /** Sends in order. Takes over the descriptors and closes them when they are sent or the channel ends. */
  send(data: Buffer, fds: readonly number[] = []): void {
    this.#queue.push({ data, fds });
    if (this.#retry === undefined) this.#flush();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#retry);
    const free = this.#watch.stop();
    close(this.#fd);
    holding(this.#own, free);
    for (const { fds } of this.#queue.splice(0)) for (const fd of fds) close(fd);
  }

  /**
   * Closes after the answer that the peer still owes: one that finds nobody makes Envoy repeat it for 10 s and then abort
   * (hot_restarting_base.cc, SENDMSG_MAX_RETRIES). `partial`: what has come of it.
   */
  retire(partial: Assembler): void {
    // A request that was never sent has no answer.
    if (this.#closed || this.#queue.length > 0) {
      this.close();
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    holding(this.#own, promise);
    const end = () => {
      clearTimeout(timer);
      this.close();
      resolve();
    };
    const timer = setTimeout(end, RETIRE_MS);
    this.#events = {
      onDatagram(data, fds) {
        for (const fd of fds) close(fd);
        if (partial.push(data) !== undefined) end();
      },
      onGone: end,
      onError: end,
    };
  }

  #flush(): void {
    this.#retry = undefined;
    for (let next = this.#queue[0]; next !== undefined && !this.#closed; next = this.#queue[0]) {
      let result: ReturnType<typeof send>;
      try {
        result = send(this.#fd, this.#peer, next.data, next.fds);
      } catch (error) {
        this.#events.onError(error);
        return;
      }
      if (result === 'full') {
        this.#retry = setTimeout(() => this.#flush(), RETRY_MS);
        return;
      }
      this.#queue.shift();
      for (const fd of next.fds) close(fd);
      if (result === 'gone') this.#events.onGone();
    }
  }

  #read(): void {
    while (!this.#closed) {
      try {
        const datagram = receive(this.#fd);
        if (datagram === undefined) return;
        // Abstract names know no permissions: only the Envoy that holds the expected name is listened to.
        if (datagram.from === this.#peer) this.#events.onDatagram(datagram.data, datagram.fds);
        else for (const fd of datagram.fds) close(fd);
      } catch (error) {
        this.#events.onError(error);
        return;
      }
    }
  }
}
