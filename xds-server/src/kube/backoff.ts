/** Waits between attempts: doubles from `first` to `most` milliseconds, and spread by a fifth so that replicas do not come at once. */
export class Backoff {
  readonly #first: number;
  readonly #most: number;
  readonly #random: () => number;
  #failures = 0;

  constructor(first = 200, most = 30_000, random: () => number = Math.random) {
    this.#first = first;
    this.#most = most;
    this.#random = random;
  }

  next(): number {
    const wait = Math.min(this.#most, this.#first * 2 ** Math.min(20, this.#failures));
    this.#failures++;
    return Math.round(wait * (0.8 + 0.4 * this.#random()));
  }

  reset(): void {
    this.#failures = 0;
  }
}

/** Resolves after that time, or as soon as the signal is aborted. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
  });
}
