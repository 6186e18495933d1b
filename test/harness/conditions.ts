const LIMIT_MS = 30_000;

/** Waits for what somebody counts, looked at on each change and not by the clock. */
export class Conditions {
  readonly #looks = new Set<() => void>();

  /** To be called with each change; cheap while nobody waits. */
  changed(): void {
    for (const look of this.#looks) look();
  }

  /** Resolves as soon as it holds. Rejects when it throws, and after `limitMs`. */
  until(what: string, holds: () => boolean, limitMs = LIMIT_MS): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (): void => {
        clearTimeout(timer);
        this.#looks.delete(look);
      };
      const timer = setTimeout(() => {
        end();
        reject(new Error(`${what}: not within ${limitMs} ms`));
      }, limitMs);
      const look = (): void => {
        try {
          if (!holds()) return;
          resolve();
        } catch (error) {
          reject(error);
        }
        end();
      };
      this.#looks.add(look);
      look();
    });
  }
}
