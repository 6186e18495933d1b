import type { EpochStatus } from '@sluice/contract';
import type { AnyEpoch } from './live-epoch.ts';
import type { EpochNotes, RunFolder } from './run-folder.ts';

/** The live epochs of this slot, by number. */
export abstract class LiveEpochs<E extends AnyEpoch> {
  /** Where the folders of the epochs are. */
  abstract readonly root: string;
  readonly #live = new Map<number, E>();

  /** Of each epoch there ever was, oldest first. */
  abstract folders(): RunFolder<EpochNotes>[];

  add(epoch: E): void {
    this.#live.set(epoch.number, epoch);
  }

  remove(epoch: E): void {
    this.#live.delete(epoch.number);
  }

  get(number: number): E | undefined {
    return this.#live.get(number);
  }

  all(): E[] {
    return [...this.#live.values()].sort((a, b) => a.number - b.number);
  }

  /** The epoch that accepts: the newest one in state `serving`. */
  serving(): E | undefined {
    return this.all().findLast((e) => e.meta.state === 'serving');
  }

  draining(): E[] {
    return this.all().filter((e) => e.meta.state === 'draining');
  }

  statuses(slot: string): EpochStatus[] {
    return this.all().map((e) => e.status(slot));
  }
}
