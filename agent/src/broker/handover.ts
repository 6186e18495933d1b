import { SluiceError } from '@sluice/contract';
import { close } from '../native/fds.ts';
import { type EndWatch, watchEnd } from '../native/process-end.ts';
import { Channel, untilFree } from './channel.ts';
import { socketKey } from './kept.ts';
import { namesOf } from './names.ts';
import type {
  Handover,
  HandoverEvent,
  HandoverOptions,
  Party,
  Passed,
  PlayParentOptions,
  RelayOptions,
} from './types.ts';
import {
  Assembler,
  encodeEmptyStatsReply,
  encodeListenSocketReply,
  encodeNotRecognized,
  encodeShutdownAdminReply,
  type ListenSocketRequest,
  type Message,
} from './wire.ts';

const DEFAULT_TIMEOUT_MS = 120_000;
const DEFAULT_TERMINATE_TIMEOUT_MS = 30_000;

/**
 * One handover. The child's requests come in order, one at a time, because Envoy blocks on each reply:
 *
 *   child --request--> front | broker | back --request--> parent        (a live parent: datagrams pass untouched)
 *   child <--reply---- front | broker | back <--reply---- parent        (a dup of each listen socket is kept)
 *   child --request--> front | broker answers from the kept sockets     (no parent, or it ended on the way)
 *   child --terminate--> front | swallowed: the end
 *
 * `pending` is the request that the parent has not answered yet: it is answered here when the parent ends.
 */
class Session implements Handover {
  readonly drainRequested: Promise<{ at: number }>;
  readonly independent: Promise<{ at: number }>;
  readonly passed: Passed[] = [];
  originalStartSeconds: number | undefined;
  readonly #options: HandoverOptions & Partial<Pick<RelayOptions, 'shutdownAdmin' | 'stopListeners' | 'bindsBeside'>>;
  readonly #child: Party;
  readonly #drain = Promise.withResolvers<{ at: number }>();
  readonly #end = Promise.withResolvers<{ at: number }>();
  readonly #fromChild = new Assembler();
  readonly #fromParent = new Assembler();
  readonly #ends: EndWatch[] = [];
  readonly #abort = () => this.#fail(this.#options.signal?.reason);
  readonly #front: Channel;
  #back: Channel | undefined;
  #pending: Message | undefined;
  #replyFds: number[] = [];
  #timer: NodeJS.Timeout;
  #connected = false;
  /** This session saw the child's first request, and so all of its requests. */
  #fromStart = false;
  #drained = false;
  #closed = false;

  constructor(options: HandoverOptions & { child: Party; originalStartSeconds?: number } & Partial<RelayOptions>) {
    this.#options = options;
    this.#child = options.child;
    this.originalStartSeconds = options.originalStartSeconds;
    this.drainRequested = this.#drain.promise;
    this.independent = this.#end.promise;
    // Whoever awaits only one of them must not be ended by the other.
    this.drainRequested.catch(() => {});
    this.independent.catch(() => {});
    options.signal?.throwIfAborted();
    const child = namesOf(options.baseId, options.child);
    this.#front = new Channel(child.itsParent, child.child, {
      onDatagram: (data, fds) => this.#fromChildDatagram(data, fds),
      onGone: () => this.#childGone('its socket is closed'),
      onError: (error) => this.#fail(error),
    });
    try {
      if (options.parent !== undefined) this.#connectParent(options.parent);
      if (options.child.pid !== undefined) this.watchChild(options.child.pid);
    } catch (error) {
      this.#front.close();
      this.#back?.close();
      throw error;
    }
    options.signal?.addEventListener('abort', this.#abort, { once: true });
    const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#timer = setTimeout(() => this.#timedOut(`epoch ${this.#child.epoch} to serve`, timeoutMs), timeoutMs);
  }

  watchChild(pid: number): void {
    this.#watchPid(pid, () => this.#childGone(`process ${pid} ended`));
  }

  close(): void {
    this.#fail(new SluiceError('EPOCH_DIED', 'the handover was closed before its end'));
  }

  #connectParent(parent: Party): void {
    const names = namesOf(this.#options.baseId, parent);
    this.#back = new Channel(names.itsChild, names.parent, {
      onDatagram: (data, fds) => this.#fromParentDatagram(data, fds),
      onGone: () => this.#parentGone('its socket is closed'),
      onError: (error) => this.#parentGone(error instanceof Error ? error.message : String(error)),
    });
    if (parent.pid !== undefined) {
      const { pid } = parent;
      this.#watchPid(pid, () => this.#parentGone(`process ${pid} ended`));
    }
  }

  #watchPid(pid: number, onEnd: () => void): void {
    // Never at once, as every event of a handover: the caller has not got its promises yet.
    if (!this.#closed) this.#ends.push(watchEnd(pid, onEnd));
  }

  // ---- child ----

  #fromChildDatagram(data: Buffer, fds: number[]): void {
    for (const fd of fds) close(fd);
    const whole = this.#fromChild.push(data);
    if (whole === undefined) return;
    if (!this.#connected) {
      this.#connected = true;
      this.#emit({ type: 'connected', at: this.#now() });
    }
    const { message, datagrams } = whole;
    if (message.kind === 'unknown') this.#unknown('child', datagrams);
    switch (message.kind) {
      case 'terminate':
        this.#succeed();
        return;
      case 'drainListeners':
        void this.#stopParent(datagrams);
        this.#served();
        return;
      case 'shutdownAdmin':
        this.#fromStart = true;
        if (this.#options.shutdownAdmin === 'answer') this.#answer(message);
        else this.#forward(message, datagrams);
        return;
      case 'testConnection':
      case 'forwardedUdp':
        this.#forward(undefined, datagrams);
        return;
      default:
        this.#forward(message, datagrams);
    }
  }

  /** To the parent while there is one; `expects`: the request whose reply the child then waits for. */
  #forward(expects: Message | undefined, datagrams: readonly Buffer[]): void {
    this.#pending = expects;
    if (this.#back === undefined) this.#answerPending();
    else for (const datagram of datagrams) this.#back?.send(datagram);
  }

  /** The parent's listeners stop: by the caller's own way, or, where there is none or it fails, by the child's request. */
  async #stopParent(datagrams: readonly Buffer[]): Promise<void> {
    const { stopListeners } = this.#options;
    if (stopListeners !== undefined && this.#back !== undefined) {
      try {
        await stopListeners();
        return;
      } catch (error) {
        this.#options.log?.('hot restart: listeners not stopped by admin, DrainListeners is relayed', {
          error: String(error),
        });
      }
    }
    // Not by #forward: the child may have asked for something else meanwhile, and waits for the answer to that.
    if (!this.#closed) for (const datagram of datagrams) this.#back?.send(datagram);
  }

  #answerPending(): void {
    const pending = this.#pending;
    this.#pending = undefined;
    if (pending !== undefined) this.#answer(pending);
  }

  /** In the parent's place. */
  #answer(message: Message): void {
    switch (message.kind) {
      case 'passListenSocket': {
        const fd = this.#options.kept?.take(message);
        this.#notePassed(message, fd !== undefined, 'kept');
        this.#front.send(encodeListenSocketReply(fd !== undefined), fd === undefined ? [] : [fd]);
        return;
      }
      case 'shutdownAdmin':
        this.originalStartSeconds ??= Math.floor(this.#now() / 1000);
        this.#front.send(encodeShutdownAdminReply(BigInt(this.originalStartSeconds)));
        return;
      case 'stats':
        this.#front.send(encodeEmptyStatsReply());
        return;
      default:
        this.#front.send(encodeNotRecognized());
    }
  }

  // ---- parent ----

  #fromParentDatagram(data: Buffer, fds: number[]): void {
    this.#replyFds.push(...fds);
    const whole = this.#fromParent.push(data);
    if (whole === undefined) return;
    const { message, datagrams } = whole;
    const replyFds = this.#replyFds;
    this.#replyFds = [];
    const pending = this.#pending;
    if (!answers(message, pending)) {
      // Owed to the child of an agent that was killed: this child would take it for its own answer.
      for (const fd of replyFds) close(fd);
      return;
    }
    this.#pending = undefined;
    if (message.kind === 'unknown') this.#unknown('parent', datagrams);
    if (message.kind === 'shutdownAdminReply') this.originalStartSeconds = Number(message.originalStartSeconds);
    if (pending?.kind === 'passListenSocket') {
      const [fd] = replyFds;
      const udp = pending.address.startsWith('udp:');
      if (fd !== undefined && udp && this.#options.bindsBeside?.(fd, pending) === true) {
        for (const each of replyFds) close(each);
        this.#notePassed(pending, false, 'parent');
        this.#front.send(encodeListenSocketReply(false));
        return;
      }
      // UDP sockets are not kept: datagrams would pile up in a socket that nobody reads.
      if (fd !== undefined && !udp) this.#options.kept?.put(pending, fd);
      this.#notePassed(pending, fd !== undefined, 'parent');
    }
    // Envoy sends descriptors with the last datagram of a message only.
    for (const [i, datagram] of datagrams.entries()) {
      this.#front.send(datagram, i === datagrams.length - 1 ? replyFds : []);
    }
  }

  #parentGone(why: string): void {
    if (this.#back === undefined || this.#closed) return;
    this.#back.close();
    this.#back = undefined;
    for (const fd of this.#replyFds.splice(0)) close(fd);
    this.#emit({ type: 'parentGone', at: this.#now(), why });
    this.#answerPending();
  }

  // ---- the ends ----

  /** The child has asked for all that it wants: a kept socket that it did not take would be served by nobody. */
  #served(): void {
    if (this.#drained) return;
    this.#drained = true;
    const taken = new Set(this.passed.filter((each) => each.given).map((each) => socketKey(each)));
    if (this.#fromStart) this.#options.kept?.retain((request) => taken.has(socketKey(request)));
    clearTimeout(this.#timer);
    const wait = this.#options.terminateTimeoutMs ?? DEFAULT_TERMINATE_TIMEOUT_MS;
    this.#timer = setTimeout(() => this.#timedOut(`the terminate request of epoch ${this.#child.epoch}`, wait), wait);
    const at = this.#now();
    this.#emit({ type: 'drainRequested', at });
    this.#drain.resolve({ at });
  }

  #succeed(): void {
    const at = this.#now();
    this.#served();
    this.#emit({ type: 'independent', at });
    this.#release();
    this.#end.resolve({ at });
  }

  #childGone(why: string): void {
    const when = this.#drained
      ? 'after it began to serve'
      : this.#connected
        ? 'while starting'
        : 'before its first message';
    this.#fail(
      new SluiceError('EPOCH_DIED', `expected epoch ${this.#child.epoch} to take over, found it gone ${when}: ${why}`),
    );
  }

  #timedOut(what: string, afterMs: number): void {
    this.#fail(new SluiceError('EPOCH_TIMEOUT', `expected ${what} within ${afterMs} ms, found none`));
  }

  #fail(error: unknown): void {
    if (this.#closed) return;
    this.#release();
    this.#drain.reject(error);
    this.#end.reject(error);
  }

  #release(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener('abort', this.#abort);
    this.#front.close();
    if (this.#pending === undefined) this.#back?.close();
    else this.#back?.retire(this.#fromParent);
    for (const fd of this.#replyFds.splice(0)) close(fd);
    for (const end of this.#ends.splice(0)) end.stop();
  }

  #notePassed(request: ListenSocketRequest, given: boolean, by: Passed['by']): void {
    const { address, worker, networkNamespace } = request;
    const passed = { address, worker, ...(networkNamespace ? { networkNamespace } : {}), given, by };
    this.passed.push(passed);
    this.#emit({ type: 'passed', at: this.#now(), passed });
  }

  #unknown(from: 'parent' | 'child', datagrams: readonly Buffer[]): void {
    const hex = (datagrams[0] ?? Buffer.alloc(0)).subarray(0, 64).toString('hex');
    this.#emit({ type: 'unknownMessage', at: this.#now(), from, hex });
  }

  #emit(event: HandoverEvent): void {
    this.#options.log?.(`hot restart: ${event.type}`, { child: this.#child.epoch, ...event });
    this.#options.onEvent?.(event);
  }

  #now(): number {
    return (this.#options.now ?? Date.now)();
  }
}

/** Whether the reply can be the answer to the request. Anything that is not known may be. */
function answers(reply: Message, pending: Message | undefined): boolean {
  if (pending === undefined) return false;
  if (pending.kind === 'unknown' || reply.kind === 'unknown' || reply.kind === 'notRecognized') return true;
  return reply.kind === `${pending.kind}Reply`;
}

/**
 * Binds the names between a live parent and the child that is about to be launched, and relays. Throws UPGRADE_CONFLICT
 * when another handover holds one of the names.
 */
export async function relayHandover(options: RelayOptions): Promise<Handover> {
  await untilFree(namesOf(options.baseId, options.parent).itsChild);
  return new Session(options);
}

/**
 * Plays the parent for a child that is about to be launched, from the kept sockets; for use when no Envoy lives. With an
 * empty kept set and ensureSharedMemory() also for the first of all: drainRequested then is the event that it serves.
 * For a child that serves already, in the place of a broker that was killed: swallows the terminate request that is
 * outstanding; the kept set is left alone.
 */
export async function playParent(options: PlayParentOptions): Promise<Handover> {
  if (options.child.epoch === 0) {
    throw new SluiceError(
      'INPUT_INVALID',
      'expected a --restart-epoch of 1 or more, found 0: Envoy then asks no parent',
    );
  }
  return new Session(options);
}
