import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { ENDED_BATCH, type EndedConnection } from '@sluice/contract';
import type { Epoch } from '../epochs/epoch.ts';
import type { KeeperContext } from './context.ts';

const FLUSH_MS = 500;

/**
 * The ends of one old epoch's connections on their way to the record: a line each in `ended.ndjson` of the epoch's
 * folder, which is all there is without a controller, and in batches to the controller.
 */
export class EndedOutbox {
  readonly #context: KeeperContext;
  readonly #old: Epoch;
  readonly #upgradeId: string;
  #items: EndedConnection[] = [];
  #dropped = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(context: KeeperContext, old: Epoch, upgradeId: string) {
    this.#context = context;
    this.#old = old;
    this.#upgradeId = upgradeId;
  }

  add(items: readonly EndedConnection[], dropped: number): void {
    this.#items.push(...items);
    this.#dropped = dropped;
    if (this.#items.length >= ENDED_BATCH) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), FLUSH_MS);
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const items = this.#items.splice(0);
    if (items.length === 0) return;
    try {
      const file = join(this.#old.folder.path, 'ended.ndjson');
      appendFileSync(file, items.map((one) => `${JSON.stringify(one)}\n`).join(''));
    } catch (error) {
      this.#context.log('warn', 'the ends of connections could not be written', { error: String(error) });
    }
    for (let from = 0; from < items.length; from += ENDED_BATCH) {
      this.#context.send({
        type: 'ended',
        upgradeId: this.#upgradeId,
        epoch: this.#old.number,
        items: items.slice(from, from + ENDED_BATCH),
        dropped: this.#dropped,
      });
    }
  }
}
