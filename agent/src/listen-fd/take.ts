import { setTimeout as delay } from 'node:timers/promises';
import { SluiceError, toSluiceError } from '@sluice/contract';
import { close as closeFd, isListening } from '../native/fds.ts';
import { boundAddress } from '../native/listen-socket.ts';
import { connectUnix } from '../native/unix-stream.ts';
import { checkPeer, FdChannel } from './channel.ts';
import type { Listener } from './give.ts';
import { type NewEffect, type NewEvent, type NewState, newSide, stepNew } from './new-side.ts';
import { TransferError, type Trouble } from './trouble.ts';

/** Longest time in each phase, ms. `serving` is the caller's own: it ends the process of its own start. */
export const NEW_BOUNDS: Readonly<Record<'offer' | 'fds' | 'released', number>> = {
  offer: 5_000,
  fds: 5_000,
  released: 40_000,
};

export interface TakeOptions {
  /** Which of the old side's addresses this one will accept on. */
  readonly wanted: (address: string) => boolean;
  readonly bounds?: Partial<typeof NEW_BOUNDS>;
  readonly signal?: AbortSignal;
}

export interface Taking {
  /** The received listen sockets: the caller's, to serve on and to close. */
  readonly listeners: readonly Listener[];
  /**
   * To be called once all of them are accepted on. `own` makes this process the giver of the next transfer, and is called
   * when the old side has stopped accepting (or has gone). `released` false: it went without a word, and may accept still.
   * Throws when the old side took its offer back, or `own` failed: then this process must accept no more.
   */
  accepting(own: () => Promise<void>): Promise<{ readonly released: boolean }>;
  /** This process can not serve: the old side goes on. The listeners are closed by their owner, the caller. */
  abandon(why: Trouble): void;
}

/**
 * Takes the listen sockets over from the process that offers them at `path`. Undefined: nobody listens there. Throws with
 * the old side untouched and accepting.
 */
export async function takeListeners(path: string, options: TakeOptions): Promise<Taking | undefined> {
  const fd = connectUnix(path);
  if (fd === 'none') return undefined;
  if (fd === 'full') throw new SluiceError('UPGRADE_CONFLICT', `expected ${path} to answer, found its queue full`);
  try {
    checkPeer(fd);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  const transfer = new NewTransfer(fd, options);
  await transfer.served;
  return transfer;
}

/** The same, again and again with a growing pause while another transfer is under way, for at most `boundMs`. */
export async function takeWhenFree(
  path: string,
  options: TakeOptions & { readonly boundMs: number },
): Promise<Taking | undefined> {
  const end = performance.now() + options.boundMs;
  let gone = 0;
  for (let wait = 20; ; wait = Math.min(wait * 2, 1_000)) {
    try {
      return await takeListeners(path, options);
    } catch (thrown) {
      const error = toSluiceError(thrown);
      // Nothing was offered yet: it had just been taken over by another one, which offers next.
      const { mishap } = error instanceof TransferError ? error : {};
      const left = mishap?.type === 'gone' && mishap.phase === 'offer';
      if (left) gone += 1;
      const again = error.code === 'UPGRADE_CONFLICT' || (left && gone <= 3);
      if (!again || performance.now() + wait > end) throw error;
    }
    await delay(wait, undefined, options.signal === undefined ? {} : { signal: options.signal });
  }
}

/** One connection, driven by the rules of new-side.ts. */
class NewTransfer implements Taking {
  readonly listeners: Listener[] = [];
  readonly served: Promise<void>;
  readonly #bounds: typeof NEW_BOUNDS;
  readonly #channel: FdChannel;
  #state: NewState;
  #timer: NodeJS.Timeout | undefined;
  #onServe = Promise.withResolvers<void>();
  #onEnd = Promise.withResolvers<{ released: boolean }>();
  #own: () => Promise<void> = async () => {};
  /** Effects are done one after the other: `own` takes a moment. */
  #queue: Promise<void> = Promise.resolve();
  #handedOut = false;

  constructor(fd: number, options: TakeOptions) {
    this.#bounds = { ...NEW_BOUNDS, ...options.bounds };
    this.served = this.#onServe.promise;
    this.#onEnd.promise.catch(() => {});
    this.#channel = new FdChannel(fd, {
      message: (message, fds) => {
        if (message.type === 'fds' && !this.#handedOut) this.#receive(message.listeners, fds);
        else for (const each of fds) closeFd(each);
        this.#step({ type: 'message', message, fds: fds.length });
      },
      mishap: (mishap) => this.#step(mishap),
    });
    const { state, effects } = newSide(options.wanted);
    this.#state = state;
    this.#arm();
    for (const effect of effects) this.#enqueue(effect);
    options.signal?.addEventListener('abort', () =>
      this.abandon({ code: 'ABORTED', message: String(options.signal?.reason ?? 'given up') }),
    );
  }

  async accepting(own: () => Promise<void>): Promise<{ released: boolean }> {
    this.#own = own;
    this.#step({ type: 'accepting' });
    return this.#onEnd.promise;
  }

  abandon(trouble: Trouble): void {
    this.#step({ type: 'unable', trouble });
  }

  #receive(listeners: readonly number[], fds: readonly number[]): void {
    for (const [i, fd] of fds.entries()) {
      this.listeners.push({ address: this.#state.addresses[listeners[i] ?? -1] ?? '', fd });
    }
  }

  #step(event: NewEvent): void {
    const before = this.#state.phase;
    const { state, effects } = stepNew(this.#state, event);
    this.#state = state;
    if (state.phase !== before) this.#arm();
    for (const effect of effects) this.#enqueue(effect);
  }

  #enqueue(effect: NewEffect): void {
    this.#queue = this.#queue.then(() => this.#do(effect)).catch((thrown: unknown) => this.#onEnd.reject(thrown));
  }

  async #do(effect: NewEffect): Promise<void> {
    switch (effect.type) {
      case 'send':
        this.#channel.send(effect.message);
        return;
      case 'serve': {
        const odd = this.listeners.find((listener) => !isWhatItSays(listener));
        if (odd) {
          const message = `expected a socket that listens on ${odd.address}, found another descriptor`;
          return this.abandon({ code: 'INPUT_INVALID', message });
        }
        this.#handedOut = true;
        return this.#onServe.resolve();
      }
      case 'drop':
        // Once handed out they are the caller's, who learns of the failure.
        if (!this.#handedOut) for (const { fd } of this.listeners.splice(0)) closeFd(fd);
        return;
      case 'own':
        // Not waited for in the queue: what it comes to is an event of its own.
        this.#own().then(
          () => this.#step({ type: 'owned' }),
          (thrown: unknown) => {
            const { code, message } = toSluiceError(thrown);
            this.#step({ type: 'unable', trouble: { code, message } });
          },
        );
        return;
      case 'end': {
        clearTimeout(this.#timer);
        this.#channel.close();
        const { phase, trouble, released } = this.#state;
        if (phase === 'done') return this.#onEnd.resolve({ released });
        const error = new TransferError(trouble ?? { code: 'INTERNAL', message: 'the transfer ended' });
        this.#onServe.reject(error);
        this.#onEnd.reject(error);
      }
    }
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const { phase } = this.#state;
    if (phase !== 'offer' && phase !== 'fds' && phase !== 'released') return;
    this.#timer = setTimeout(() => this.#step({ type: 'timeout' }), this.#bounds[phase]);
  }
}

function isWhatItSays({ address, fd }: Listener): boolean {
  try {
    return isListening(fd) && boundAddress(fd) === address;
  } catch {
    return false;
  }
}
