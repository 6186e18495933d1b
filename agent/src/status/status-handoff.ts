import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { SluiceError } from '@sluice/contract';
import { type Giving, offerListeners } from '../listen-fd/give.ts';
import { takeWhenFree } from '../listen-fd/take.ts';
import type { Log } from '../log.ts';
import { close as closeFd, dup } from '../native/fds.ts';
import { boundAddress } from '../native/listen-socket.ts';
import { createStatusPort, type StatusHandlers, type StatusPort } from './status-port.ts';
import { answers } from './unix-listen.ts';

/** A peer that has just ended may hold the port for a moment still. */
const CLAIM_MS = 10_000;
/** Longest pause between two tries: soon the first ones, then rarely, for without the port the Pod is not ready. */
const TRY_MS = 1_000;
const RARELY_MS = 5_000;
/** From a peer's bind to its offer; both containers may start at once. */
const OFFER_MS = 1_000;
/** A peer that serves takes the port within milliseconds; one that has another address never does. */
const GIVEN_MS = 2_000;

export interface HandedStatusPort {
  /** Takes the port over from the agent of the other slot, where that one has it. Resolves once this one answers on it. */
  claim(): Promise<void>;
  /** Resolves once the peer answers in the place of this one, which is about to end; at once where it has no port. */
  given(): Promise<void>;
  close(): Promise<void>;
}

export interface HandedOptions {
  readonly address: string;
  readonly handlers: StatusHandlers;
  readonly shared: string;
  readonly slot: string;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** How soon a port that can not be had is an error to be told of. */
  readonly claimMs?: number | undefined;
}

/**
 * The status port of one of two agents in one network (S4). Whoever comes first binds it; the next one gets the *open*
 * listen socket from it (SCM_RIGHTS), accepts, and only then the first one stops: there is no moment at which a probe is
 * refused, and none that was accepted goes unanswered. Throws CONFIG_INVALID when the port belongs to somebody else.
 */
export async function openHandedStatusPort(options: HandedOptions): Promise<HandedStatusPort> {
  const holder = new Holder(options);
  const end = performance.now() + OFFER_MS;
  for (let wait = 20; ; wait *= 2) {
    try {
      await holder.bind();
      return holder;
    } catch (error) {
      if (await holder.peerOffers()) break;
      // Bound a moment ago, by a peer that does not offer it yet; or for good, by somebody else.
      if (performance.now() + wait > end || options.signal.aborted) throw error;
    }
    await delay(wait, undefined, { signal: options.signal });
  }
  options.log('info', 'the status port is the peer’s still', { address: options.address });
  return holder;
}

class Holder implements HandedStatusPort {
  readonly #options: HandedOptions;
  readonly #own: string;
  /** The one that accepts, last; those before it only answer what they accepted. */
  readonly #ports: StatusPort[] = [];
  #held = false;
  readonly #released = Promise.withResolvers<void>();
  #giving: Giving | undefined;
  /** Descriptor of the socket that is offered. */
  #kept: number | undefined;

  constructor(options: HandedOptions) {
    this.#options = options;
    this.#own = `status-${options.slot}.sock`;
  }

  async bind(): Promise<void> {
    await this.#serve(this.#options.address);
    await this.#offer();
  }

  async peerOffers(): Promise<boolean> {
    for (const path of this.#peers()) if (await answers(path)) return true;
    return false;
  }

  async claim(): Promise<void> {
    if (this.#held) return;
    const { signal, log, claimMs = CLAIM_MS } = this.#options;
    const end = performance.now() + claimMs;
    let told = false;
    for (let wait = 20; !signal.aborted; wait = Math.min(wait * 2, told ? RARELY_MS : TRY_MS)) {
      try {
        for (const path of this.#peers()) if (await this.#take(path)) return;
        // No agent has it to give: the one that had it has ended.
        return await this.bind();
      } catch (error) {
        if (!told && !signal.aborted && performance.now() + wait > end) {
          told = true;
          log('error', 'the status port could not be had: tried again until it can', { error: String(error) });
        }
      }
      await delay(wait, undefined, { signal }).catch(() => {});
    }
  }

  given(): Promise<void> {
    if (!this.#held) return Promise.resolve();
    return Promise.race([this.#released.promise, delay(GIVEN_MS, undefined, { ref: false })]);
  }

  async close(): Promise<void> {
    await this.#letGo();
    await Promise.all(this.#ports.map((port) => port.close()));
  }

  #peers(): string[] {
    const { shared } = this.#options;
    const names = readdirSync(shared).filter((name) => /^status-.+\.sock$/.test(name) && name !== this.#own);
    return names.map((name) => join(shared, name));
  }

  async #take(path: string): Promise<boolean> {
    const { signal, log, claimMs = CLAIM_MS } = this.#options;
    const taking = await takeWhenFree(path, { wanted: () => true, boundMs: claimMs, signal });
    if (taking === undefined) return false;
    const [first, ...others] = taking.listeners;
    for (const { fd } of others) closeFd(fd);
    if (first === undefined) throw new SluiceError('LISTEN_FD_BROKEN', 'expected one listen socket, found none');
    try {
      await this.#serve({ fd: first.fd });
      const { released } = await taking.accepting(() => this.#offer());
      log('info', 'status port taken over', { address: first.address, released });
      return true;
    } catch (error) {
      // The peer goes on with it.
      this.#held = false;
      this.#ports.at(-1)?.stopAccepting();
      taking.abandon({ code: 'LISTEN_FD_BROKEN', message: String(error) });
      throw error;
    }
  }

  async #serve(where: string | { readonly fd: number }): Promise<void> {
    this.#ports.push(await createStatusPort(where, this.#options.handlers));
    this.#held = true;
  }

  async #offer(): Promise<void> {
    const { shared, log } = this.#options;
    // Kept until it is given away: the peer may fail after this one has stopped.
    const fd = (this.#ports.at(-1) as StatusPort).socket();
    const address = boundAddress(fd);
    this.#kept = fd;
    this.#giving = await offerListeners(
      join(shared, this.#own),
      {
        listeners: () => [{ address, fd }],
        stop: () => this.#ports.at(-1)?.stopAccepting(),
        resume: () => this.#serve({ fd: dup(fd) }),
        released: () => {
          log('info', 'status port given to the peer', { address });
          this.#held = false;
          this.#released.resolve();
          void this.#letGo();
        },
      },
      // Whoever only looks whether the port is offered goes before its first word: no news.
      { log: (level, message, fields) => log(level === 'warn' ? 'debug' : level, message, fields) },
    );
  }

  async #letGo(): Promise<void> {
    const [giving, kept] = [this.#giving, this.#kept];
    this.#giving = undefined;
    this.#kept = undefined;
    await giving?.close();
    if (kept !== undefined) closeFd(kept);
  }
}
