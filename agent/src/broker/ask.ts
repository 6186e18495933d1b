import { SluiceError } from '@sluice/contract';
import { close, inode } from '../native/fds.ts';
import { Channel } from './channel.ts';
import { namesOf } from './names.ts';
import type { FoundSocket } from './sync.ts';
import type { Party } from './types.ts';
import { Assembler, encodeListenSocketRequest, type ListenSocketRequest } from './wire.ts';

const DEFAULT_TIMEOUT_MS = 5_000;
/** Envoy answers -1 past its last worker; this bounds a peer that never does. */
const MAX_WORKERS = 1024;
/** Longer than Envoy's 10 repetitions, a second apart, of an answer that finds nobody. */
const LINGER_MS = 15_000;

export interface AskOptions {
  readonly baseId: number;
  readonly envoy: Party;
  /** What to ask for, in Envoy's form, with the inodes that an answer about it may have. */
  readonly sockets: readonly { readonly address: string; readonly inode: number }[];
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

/**
 * Asks a live Envoy for its listen sockets as its hot restart child would (PassListenSocket changes nothing in the parent).
 * Needs no permission over the process, only its network namespace. Throws UPGRADE_CONFLICT while a handover of this
 * Envoy is under way.
 *
 * An answer that finds nobody makes Envoy repeat it for 10 s and then abort (hot_restarting_base.cc,
 * SENDMSG_MAX_RETRIES): so the name is held until the last answer came, also past a timeout, and a successor of a
 * killed agent should ask again at once: the answer that its predecessor was owed is told by its inode, and dropped.
 */
export async function askListenSockets(options: AskOptions): Promise<FoundSocket[]> {
  const { sockets, signal, timeoutMs = DEFAULT_TIMEOUT_MS } = options;
  const found: FoundSocket[] = [];
  const conversation = new Conversation(options, timeoutMs);
  try {
    for (const address of new Set(sockets.map((socket) => socket.address))) {
      for (let worker = 0; worker < MAX_WORKERS; worker++) {
        signal?.throwIfAborted();
        const request = { address, worker };
        const fd = await conversation.ask(request);
        if (fd === undefined) break;
        found.push({ request, fd });
      }
    }
    return found;
  } catch (error) {
    for (const { fd } of found) close(fd);
    throw error;
  } finally {
    conversation.close();
  }
}

class Conversation {
  readonly #channel: Channel;
  readonly #timeoutMs: number;
  readonly #assembler = new Assembler();
  readonly #sockets: AskOptions['sockets'];
  #waiting:
    | { address: string; resolve: (fd: number | undefined) => void; reject: (error: unknown) => void }
    | undefined;
  #owed = 0;
  #closing: NodeJS.Timeout | undefined;

  constructor({ baseId, envoy, sockets }: AskOptions, timeoutMs: number) {
    const names = namesOf(baseId, envoy);
    this.#sockets = sockets;
    this.#timeoutMs = timeoutMs;
    this.#channel = new Channel(names.itsChild, names.parent, {
      onDatagram: (data, fds) => this.#answered(data, fds),
      onGone: () => {
        this.#owed = 0;
        this.#failed(new SluiceError('EPOCH_DIED', `expected epoch ${envoy.epoch} at @${names.parent}, found nobody`));
      },
      onError: (error) => this.#failed(error),
    });
  }

  /** The socket, or undefined when Envoy has none for that address and worker. */
  async ask(request: ListenSocketRequest): Promise<number | undefined> {
    const { promise, resolve, reject } = Promise.withResolvers<number | undefined>();
    this.#waiting = { address: request.address, resolve, reject };
    this.#owed++;
    const timer = setTimeout(() => {
      const what = `an answer about ${request.address} within ${this.#timeoutMs} ms`;
      this.#failed(new SluiceError('TIMEOUT', `expected ${what}, found none`));
    }, this.#timeoutMs);
    this.#channel.send(encodeListenSocketRequest(request));
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** At once, or when the answer that is still owed has come. */
  close(): void {
    if (this.#owed === 0) this.#channel.close();
    else this.#closing = setTimeout(() => this.#channel.close(), LINGER_MS);
  }

  #answered(data: Buffer, fds: number[]): void {
    const [fd, ...surplus] = fds;
    for (const each of surplus) close(each);
    const waiting = this.#waiting;
    try {
      const kind = this.#assembler.push(data)?.message.kind;
      if (kind !== 'passListenSocketReply') {
        throw new SluiceError('PREFLIGHT_WIRE', `expected a listen socket, found ${kind ?? 'a part of a message'}`);
      }
      if (waiting === undefined || !this.#belongs(fd, waiting.address)) {
        if (fd !== undefined) close(fd);
      } else {
        this.#waiting = undefined;
        waiting.resolve(fd);
      }
      if (waiting !== undefined && this.#waiting !== undefined) return;
    } catch (error) {
      if (fd !== undefined) close(fd);
      this.#failed(error);
    }
    this.#owed--;
    if (this.#closing !== undefined) {
      clearTimeout(this.#closing);
      this.#channel.close();
    }
  }

  #belongs(fd: number | undefined, address: string): boolean {
    if (fd === undefined) return true;
    const found = inode(fd);
    return this.#sockets.some((socket) => socket.address === address && socket.inode === found);
  }

  #failed(error: unknown): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(error);
  }
}
