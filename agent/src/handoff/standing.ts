import type { Role } from './negotiate.ts';

/** An agent's place beside the one of the other slot, as far as it is known, with an event for each change. */
export interface Facts {
  /** What the negotiation came to; absent before it. */
  readonly role?: Role['role'];
  /** Slot of the other agent, when there is one. */
  readonly peer?: string;
  /** The peer has begun to take over; an upgrade's id. */
  readonly taking?: string;
  /** The peer's epoch that serves in the place of ours. */
  readonly handedTo?: { readonly epoch: number; readonly slot: string };
}

export class Standing {
  #facts: Facts = {};
  readonly #listeners = new Set<() => void>();

  get facts(): Facts {
    return this.#facts;
  }

  set(change: { readonly [K in keyof Facts]?: Facts[K] | undefined }): void {
    const next = { ...this.#facts, ...change };
    this.#facts = Object.fromEntries(Object.entries(next).filter(([, value]) => value !== undefined));
    this.changed();
  }

  /** Something that somebody may wait for has changed: also an epoch's state, which is not kept here. */
  changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** `listener` is called after each change from now on. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** The first thing that `look` gives, now or after a change. Rejects with the signal's reason. */
  until<T>(look: () => T | undefined, signal: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      const stop = (): void => {
        this.#listeners.delete(listener);
        signal.removeEventListener('abort', onAbort);
      };
      const listener = (): void => {
        const found = look();
        if (found === undefined) return;
        stop();
        resolve(found);
      };
      const onAbort = (): void => {
        stop();
        reject(signal.reason);
      };
      if (signal.aborted) return onAbort();
      this.#listeners.add(listener);
      signal.addEventListener('abort', onAbort, { once: true });
      listener();
    });
  }
}
