import { NdjsonDecoder, SluiceError, toSluiceError } from '@sluice/contract';
import { close as closeFd } from '../native/fds.ts';
import { type Watch, watchReadable } from '../native/poller.ts';
import { MAX_FDS_A_MESSAGE, peerCredentials, receiveStream, sendStream } from '../native/unix-stream.ts';
import { MAX_MESSAGE_BYTES, type Message, readMessage } from './messages.ts';
import type { Mishap } from './trouble.ts';

/** Messages handled in one turn: more than a whole transfer has, so that a peer that never stops is noticed. */
const MAX_READS = 64;

export interface ChannelEvents {
  /** `fds` are the receiver's now. */
  message(message: Message, fds: number[]): void;
  mishap(mishap: Mishap): void;
}

/** One connection between the two sides: lines with descriptors. Never blocks, never throws; what is odd is a mishap. */
export class FdChannel {
  readonly #fd: number;
  readonly #events: ChannelEvents;
  readonly #lines = new NdjsonDecoder(MAX_MESSAGE_BYTES);
  readonly #watch: Watch;
  #pending: number[] = [];
  #closed = false;

  /** Takes the descriptor over. Events come from later turns only. */
  constructor(fd: number, events: ChannelEvents) {
    this.#fd = fd;
    this.#events = events;
    this.#watch = watchReadable(fd, () => this.#read());
  }

  /** False: it could not be sent, and the mishap follows. The descriptors stay the caller's. */
  send(message: Message, fds: readonly number[] = []): boolean {
    if (this.#closed) return false;
    const sent = sendStream(this.#fd, Buffer.from(`${JSON.stringify(message)}\n`), fds);
    if (sent === 'sent') return true;
    const full = 'expected the other side to read, found that it does not';
    // In a later turn: whoever sends is in the middle of a step of its own.
    setImmediate(() =>
      this.#mishap(
        sent === 'gone' ? { type: 'gone' } : { type: 'broken', trouble: { code: 'LISTEN_FD_BROKEN', message: full } },
      ),
    );
    return false;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watch.stop();
    for (const fd of this.#pending.splice(0)) closeFd(fd);
    closeFd(this.#fd);
  }

  #read(): void {
    for (let i = 0; i < MAX_READS && !this.#closed; i++) {
      let objects: Record<string, unknown>[];
      try {
        const received = receiveStream(this.#fd);
        if (received === undefined) return;
        this.#pending.push(...received.fds);
        if (received.ended) {
          this.#mishap({ type: 'gone' });
          return;
        }
        objects = this.#lines.push(received.data);
        for (const object of objects) this.#deliver(readMessage(object));
        if (this.#pending.length > MAX_FDS_A_MESSAGE) {
          throw new SluiceError('TOO_LARGE', `expected a message with its descriptors, found ${this.#pending.length}`);
        }
      } catch (thrown) {
        const { code, message } = toSluiceError(thrown);
        this.#mishap({ type: 'broken', trouble: { code, message } });
        return;
      }
    }
  }

  /** Descriptors never come later than the last byte of the message that they belong to. */
  #deliver(message: Message): void {
    const count = message.type === 'fds' ? message.listeners.length : this.#pending.length;
    const fds = this.#pending.splice(0, count);
    if (this.#closed) for (const fd of fds) closeFd(fd);
    else this.#events.message(message, fds);
  }

  #mishap(mishap: Mishap): void {
    if (!this.#closed) this.#events.mishap(mishap);
  }
}

/** Throws LISTEN_FD_PEER unless the other end was made by this user or by root (SO_PEERCRED: the kernel's word). */
export function checkPeer(fd: number): void {
  const { uid, pid } = peerCredentials(fd);
  const own = process.geteuid?.() ?? 0;
  if (uid === own || uid === 0) return;
  throw new SluiceError(
    'LISTEN_FD_PEER',
    `expected a process of user ${own} or root, found process ${pid} of user ${uid}`,
  );
}
