import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { reserveEpoch } from '../handoff/reserve.ts';
import type { Epoch } from './epoch.ts';
import { EpochFolder, epochFolders } from './folder.ts';
import { LiveEpochs } from './live-epochs.ts';

/** The epochs of this slot that are alive, and the numbers given out so far. */
export class EpochRegistry extends LiveEpochs<Epoch> {
  readonly root: string;
  readonly #shared: string | undefined;

  /** `shared`: numbers are reserved there too, so that the two slots of a proxy never use the same one. */
  constructor(runFolder: string, shared?: string) {
    super();
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
}
