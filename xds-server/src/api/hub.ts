import type { WatchItem } from '@sluice/contract';

/** Whoever watches gets each item; a watcher that throws or does not read is its own concern. */
export class Hub {
  readonly #watchers = new Set<(item: WatchItem) => void>();

  get size(): number {
    return this.#watchers.size;
  }

  watch(watcher: (item: WatchItem) => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  publish(item: WatchItem): void {
    for (const watcher of [...this.#watchers]) watcher(item);
  }
}
