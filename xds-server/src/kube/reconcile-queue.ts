import { Backoff } from './backoff.ts';

export interface QueueOptions {
  /** Work on one key; never twice at once for the same. A rejection is tried again, later each time. */
  readonly work: (key: string) => Promise<void>;
  readonly onError: (key: string, error: unknown, waitMs: number) => void;
  /** Least time between two turns of a key: whatever changes meanwhile is one. */
  readonly gapMs: (key: string) => number;
  readonly signal: AbortSignal;
}

interface Entry {
  timer?: NodeJS.Timeout | undefined;
  dueAt: number;
  running: boolean;
  /** When it is to run once more, as asked for while it ran. */
  again?: number | undefined;
  lastAt: number;
  readonly backoff: Backoff;
}

/** Keys that are to be looked at: each once, however often it is asked for, and at once or after a pause. */
export class ReconcileQueue {
  readonly #options: QueueOptions;
  readonly #entries = new Map<string, Entry>();

  constructor(options: QueueOptions) {
    this.#options = options;
    options.signal.addEventListener('abort', () => {
      for (const entry of this.#entries.values()) clearTimeout(entry.timer);
    });
  }

  add(key: string, afterMs = 0): void {
    const { signal, gapMs } = this.#options;
    if (signal.aborted) return;
    const entry = this.#entries.get(key) ?? { dueAt: 0, running: false, lastAt: 0, backoff: new Backoff(500, 60_000) };
    this.#entries.set(key, entry);
    const at = Math.max(Date.now() + afterMs, entry.lastAt + gapMs(key));
    if (entry.running) {
      entry.again = Math.min(entry.again ?? at, at);
      return;
    }
    if (entry.timer !== undefined && entry.dueAt <= at) return;
    clearTimeout(entry.timer);
    entry.dueAt = at;
    entry.timer = setTimeout(() => void this.#run(key, entry), Math.max(0, at - Date.now()));
  }

  forget(key: string): void {
    clearTimeout(this.#entries.get(key)?.timer);
    this.#entries.delete(key);
  }

  async #run(key: string, entry: Entry): Promise<void> {
    const { work, onError, signal } = this.#options;
    entry.timer = undefined;
    entry.running = true;
    entry.again = undefined;
    entry.lastAt = Date.now();
    try {
      await work(key);
      entry.backoff.reset();
    } catch (error) {
      if (signal.aborted) return;
      const waitMs = entry.backoff.next();
      onError(key, error, waitMs);
      entry.again = Math.max(entry.again ?? 0, Date.now() + waitMs);
    } finally {
      entry.running = false;
    }
    if (entry.again !== undefined && this.#entries.get(key) === entry) this.add(key, entry.again - Date.now());
  }
}
