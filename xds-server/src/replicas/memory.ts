import type { Membership, Replica } from './membership.ts';

/** The replicas of one process, for tests: whoever joined lives until it leaves or `dies`. */
export class MemoryReplicas {
  readonly #live = new Map<string, Replica>();
  readonly #terms = new Map<string, number>();
  readonly #listeners = new Set<() => void>();

  /** The view of one of them. */
  membership(self: string): Membership {
    return {
      self,
      members: () => [...this.#live.values()].sort((a, b) => (a.id < b.id ? -1 : 1)),
      leader: () => {
        const [first] = [...this.#terms].filter(([id]) => this.#live.has(id)).sort(([, a], [, b]) => b - a);
        return first && this.#live.get(first[0]);
      },
      leads: (fence) => {
        if (fence === undefined) this.#terms.delete(self);
        else this.#terms.set(self, fence);
      },
      onChange: (listener, signal) => {
        this.#listeners.add(listener);
        signal.addEventListener('abort', () => this.#listeners.delete(listener), { once: true });
      },
      join: async (replica) => {
        this.#live.set(self, replica);
        this.#changed();
      },
      leave: async () => this.dies(self),
      doubtfulSince: () => undefined,
    };
  }

  dies(id: string): void {
    if (this.#live.delete(id)) this.#changed();
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}
