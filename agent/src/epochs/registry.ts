import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { EpochStatus } from '@sluice/contract';
import { reserveEpoch } from '../handoff/reserve.ts';
import type { Epoch } from './epoch.ts';
import { EpochFolder, epochFolders } from './folder.ts';

/** The epochs of this slot that are alive, and the numbers given out so far. */
export class EpochRegistry {
  readonly root: string;
  readonly #shared: string | undefined;
  readonly #live = new Map<number, Epoch>();

  /** `shared`: numbers are reserved there too, so that the two slots of a proxy never use the same one. */
  constructor(runFolder: string, shared?: string) {
    this.#shared = shared;
    this.root = join(runFolder, 'epochs');
    mkdirSync(this.root, { recursive: true, mode: 0o700 });
  }

  folders(): EpochFolder[] {
    return epochFolders(this.root);
  }

  /** A number never used before in this run folder, with its folder made: two callers get two numbers. */
  create(atLeast = 0): EpochFolder {
    const last = this.folders().at(-1)?.epoch ?? -1;
    const wanted = Math.max(last + 1, atLeast);
    const number = this.#shared === undefined ? wanted : reserveEpoch(this.#shared, wanted);
    const folder = new EpochFolder(this.root, number);
    folder.create();
    return folder;
  }

  add(epoch: Epoch): void {
    this.#live.set(epoch.number, epoch);
  }

  remove(epoch: Epoch): void {
    this.#live.delete(epoch.number);
  }

  get(number: number): Epoch | undefined {
    return this.#live.get(number);
  }

  all(): Epoch[] {
    return [...this.#live.values()].sort((a, b) => a.number - b.number);
  }

  /** The epoch that accepts: the newest one in state `serving`. */
  serving(): Epoch | undefined {
    return this.all().findLast((e) => e.meta.state === 'serving');
  }

  draining(): Epoch[] {
    return this.all().filter((e) => e.meta.state === 'draining');
  }

  statuses(slot: string): EpochStatus[] {
    return this.all().map((e) => e.status(slot));
  }
}
