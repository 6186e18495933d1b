import { SluiceError } from '@sluice/contract';
import { close, inode } from '../native/fds.ts';
import { Channel, untilFree } from './channel.ts';
import { namesOf } from './names.ts';
import type { FoundSocket } from './sync.ts';
import type { Party } from './types.ts';
import { Assembler, encodeListenSocketRequest, type ListenSocketRequest } from './wire.ts';

const DEFAULT_TIMEOUT_MS = 5_000;
/** Envoy answers -1 past its last worker; this bounds a peer that never does. */
const MAX_WORKERS = 1024;

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
  await untilFree(namesOf(options.baseId, options.envoy).itsChild);
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
    this.#owed = 1;
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
    else this.#channel.retire(this.#assembler);
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
      // Not ours: the answer that a killed predecessor of this agent was owed.
      if (waiting === undefined || !this.#belongs(fd, waiting.address)) {
        if (fd !== undefined) close(fd);
        return;
      }
      this.#waiting = undefined;
      this.#owed = 0;
      waiting.resolve(fd);
    } catch (error) {
      if (fd !== undefined) close(fd);
      this.#failed(error);
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

export interface AbsorbOptions {
  readonly baseId: number;
  readonly envoy: Party;
  /** Envoy repeats an answer every second. Default 2,500 ms. */
  readonly durationMs?: number;
  readonly signal?: AbortSignal;
}

/**
 * For the successor of an agent that was killed in a handover or while asking: takes in, under the name that this Envoy
 * believes to be its child's, the answer that it may still be trying to give. Without this it aborts after 10 s. Returns
 * how many messages came. Do it before anything else is asked of this Envoy.
 */
export async function absorbReplies(options: AbsorbOptions): Promise<number> {
  const names = namesOf(options.baseId, options.envoy);
  await untilFree(names.itsChild);
  options.signal?.throwIfAborted();
  const over = Promise.withResolvers<void>();
  let messages = 0;
  const assembler = new Assembler();
  const channel = new Channel(names.itsChild, names.parent, {
    onDatagram(data, fds) {
      for (const fd of fds) close(fd);
      try {
        if (assembler.push(data) !== undefined) messages++;
      } catch {
        // The rest of a message whose head the predecessor received.
      }
    },
    onGone: () => {},
    onError: () => over.resolve(),
  });
  const timer = setTimeout(over.resolve, options.durationMs ?? 2_500);
  const stop = () => over.resolve();
  options.signal?.addEventListener('abort', stop, { once: true });
  await over.promise;
  clearTimeout(timer);
  options.signal?.removeEventListener('abort', stop);
  channel.close();
  return messages;
}
