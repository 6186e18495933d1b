import { setTimeout as delay } from 'node:timers/promises';
import { SluiceError, toSluiceError } from '@sluice/contract';
import { Backoff } from '../kube/backoff.ts';
import type { Log } from '../log.ts';

export interface LaterOptions {
  readonly log: Log;
  /** First and longest wait before something is written; it doubles as long as there is more. Milliseconds. */
  readonly firstMs: number;
  readonly mostMs: number;
  /** So many are written at once. */
  readonly parallel?: number;
}

const FLUSH_MS = 2_000;

interface Due {
  readonly waiting: PromiseWithResolvers<void>[];
  /** Aborted: at once. */
  readonly now: AbortController;
  waitMs: number;
}

/**
 * Writes of what may wait a moment, such as what agents say: what comes for one key meanwhile is one write. One that fails is
 * tried again until it succeeds, is refused, or this is closed. `write` is called once at a time for a key.
 */
export class Later {
  readonly #write: (key: string) => Promise<void>;
  readonly #options: LaterOptions;
  readonly #due = new Map<string, Due>();
  readonly #running = new Map<string, Promise<void>>();
  readonly #turns: (() => void)[] = [];
  readonly #stop = new AbortController();
  #busy = 0;
  #trouble: { readonly since: number; readonly error: SluiceError } | undefined;

  constructor(write: (key: string) => Promise<void>, options: LaterOptions) {
    this.#write = write;
    this.#options = options;
  }

  /** Set while what is due can not be written. */
  get trouble(): { readonly since: number; readonly error: SluiceError } | undefined {
    return this.#trouble;
  }

  /** Resolves when what is there for the key now is written. */
  soon(key: string): Promise<void> {
    const waiting = Promise.withResolvers<void>();
    const due = this.#due.get(key) ?? { waiting: [], now: new AbortController(), waitMs: this.#options.firstMs };
    due.waiting.push(waiting);
    this.#due.set(key, due);
    if (!this.#running.has(key)) {
      this.#running.set(key, this.#run(key));
    }
    return waiting.promise;
  }

  /** Writes now what is due for the key, before it is read. Not longer than the limit, for that may be away. Never rejects. */
  async flush(key?: string, limitMs = FLUSH_MS): Promise<void> {
    const end = new AbortController();
    await Promise.race([this.#flushed(key).catch(() => undefined), pause(limitMs, end.signal)]);
    end.abort();
  }

  async #flushed(key: string | undefined): Promise<void> {
    const keys = key === undefined ? [...this.#due.keys()] : [key];
    await Promise.all(
      keys.map(async (one) => {
        const due = this.#due.get(one);
        if (due === undefined) return this.#running.get(one);
        const waiting = Promise.withResolvers<void>();
        due.waiting.push(waiting);
        due.now.abort();
        return waiting.promise;
      }),
    );
  }

  /** Writes what is due within the limit; what could not be written is rejected. */
  async close(limitMs: number): Promise<void> {
    await this.flush(undefined, limitMs);
    this.#stop.abort();
    for (const due of this.#due.values()) due.now.abort();
    for (const turn of this.#turns.splice(0)) turn();
    await Promise.all(this.#running.values());
  }

  async #run(key: string): Promise<void> {
    let waitMs = this.#options.firstMs;
    for (;;) {
      const due = this.#due.get(key);
      if (due === undefined) {
        // In the turn in which nothing was found: what comes in the next one begins anew.
        this.#running.delete(key);
        return;
      }
      await pause(waitMs, AbortSignal.any([due.now.signal, this.#stop.signal]));
      await this.#turn();
      // What comes from here on is another write.
      this.#due.delete(key);
      try {
        await this.#persist(key);
        for (const one of due.waiting) one.resolve();
      } catch (error) {
        for (const one of due.waiting) one.reject(error);
      } finally {
        this.#busy--;
        this.#turns.shift()?.();
      }
      waitMs = Math.min(this.#options.mostMs, waitMs * 2);
    }
  }

  async #turn(): Promise<void> {
    const { parallel = 8 } = this.#options;
    while (this.#busy >= parallel && !this.#stop.signal.aborted)
      await new Promise<void>((resolve) => this.#turns.push(resolve));
    this.#busy++;
  }

  async #persist(key: string): Promise<void> {
    const backoff = new Backoff(200, 5_000);
    for (;;) {
      if (this.#stop.signal.aborted) throw new SluiceError('CONTROLLER_AWAY', 'the controller closes');
      try {
        await this.#write(key);
        this.#trouble = undefined;
        return;
      } catch (thrown) {
        const error = toSluiceError(thrown);
        if (error.code !== 'KUBE_AWAY') throw error;
        const waitMs = backoff.next();
        this.#trouble ??= { since: Date.now(), error };
        this.#options.log.warn({ key, error: error.message, waitMs }, 'the state could not be written: again later');
        await pause(waitMs, this.#stop.signal);
      }
    }
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => undefined);
}
