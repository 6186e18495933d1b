import { appendFileSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { ENDED_BATCH, type EndedConnection } from '@sluice/contract';
import type { AnyEpoch } from '../epochs/live-epoch.ts';
import type { FrontContext } from './front.ts';

const FLUSH_MS = 500;

/**
 * The ends of one old epoch's connections on their way to the record: a line each in `ended.ndjson` of the epoch's
 * folder, which is all there is without a controller, and in batches to the controller.
 */
export class EndedOutbox {
  readonly #context: Pick<FrontContext, 'send' | 'log'>;
  readonly #old: AnyEpoch;
  readonly #upgradeId: string;
  #items: EndedConnection[] = [];
  #dropped = 0;
  #droppedSaid = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(context: Pick<FrontContext, 'send' | 'log'>, old: AnyEpoch, upgradeId: string) {
    this.#context = context;
    this.#old = old;
    this.#upgradeId = upgradeId;
  }

  /**
   * What the ledger has to know of the drain so far. The ends that an earlier agent kept are told again, for it may have
   * died between its file and its controller, who keeps each of them once.
   */
  begun(): { readonly open: number | undefined; readonly items: readonly EndedConnection[] } {
    const items = this.#read();
    if (items.length > 0) this.#send(items);
    return { open: this.#old.meta.oldConnections, items };
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
    if (items.length > 0) this.#write(items);
    if (items.length > 0 || this.#dropped !== this.#droppedSaid) this.#send(items);
  }

  get #file(): string {
    return join(this.#old.folder.path, 'ended.ndjson');
  }

  #write(items: readonly EndedConnection[]): void {
    try {
      appendFileSync(this.#file, items.map((one) => `${JSON.stringify(one)}\n`).join(''));
    } catch (error) {
      this.#context.log('warn', 'the ends of connections could not be written', { error: String(error) });
    }
  }

  #send(items: readonly EndedConnection[]): void {
    this.#droppedSaid = this.#dropped;
    for (let from = 0; from === 0 || from < items.length; from += ENDED_BATCH) {
      this.#context.send({
        type: 'ended',
        upgradeId: this.#upgradeId,
        epoch: this.#old.number,
        items: items.slice(from, from + ENDED_BATCH),
        dropped: this.#dropped,
      });
    }
  }

  #read(): EndedConnection[] {
    let text: string;
    try {
      text = readFileSync(this.#file, 'utf8');
    } catch {
      return []; // none has ended yet
    }
    const lines = text.split('\n');
    const torn = lines.pop() as string;
    try {
      // What was torn with its agent goes, so that the next line is not part of it.
      if (torn !== '') truncateSync(this.#file, Buffer.byteLength(text) - Buffer.byteLength(torn));
    } catch (error) {
      this.#context.log('warn', 'the ends of connections could not be written', { error: String(error) });
    }
    return lines.flatMap((line) => {
      try {
        return [JSON.parse(line) as EndedConnection];
      } catch {
        return [];
      }
    });
  }
}
