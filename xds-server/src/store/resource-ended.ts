import { connectionKey, type EndedConnection, MAX_ENDED, SluiceError } from '@sluice/contract';
import { isReason } from '../kube/client.ts';
import type { Log } from '../log.ts';
import { metadataOf, PROXY_UPGRADES, type StateApi } from './resource-api.ts';
import { type ChunkSpec, chunksOf, putChunk } from './resource-chunks.ts';
import { Later } from './resource-later.ts';
import { objectName } from './resource-names.ts';
import { pack, unpack } from './resource-payload.ts';
import type { Ended } from './store.ts';

/** So many ends are in one object: 15 kB of it, gzipped. */
const CHUNK_ITEMS = 500;
/** Upgrades whose ends are known here, so that each is kept once; of others they are read again. */
const MAX_KNOWN = 4_096;
const CLOSE_MS = 2_000;

interface Kept {
  readonly keys: Set<string>;
  /** The chunk that is not full yet. */
  last: { readonly from: number; readonly items: readonly EndedConnection[]; readonly version: string } | undefined;
  dropped: number;
}

interface Waiting {
  items: EndedConnection[];
  dropped: number;
}

/**
 * How connections of old epochs ended, in chunks of at most CHUNK_ITEMS, each owned by its upgrade. The ends that come within
 * some seconds are one write. An agent tells what it told within fifteen seconds before its link broke again; so a
 * controller that dies in between loses none.
 */
export class EndedChunks {
  readonly #api: StateApi;
  readonly #uid: (upgradeId: string) => Promise<string | undefined>;
  readonly #kept = new Map<string, Kept>();
  readonly #waiting = new Map<string, Waiting>();
  readonly #later: Later;

  constructor(
    api: StateApi,
    uid: (upgradeId: string) => Promise<string | undefined>,
    { log, firstMs = 1_000, mostMs = 8_000 }: { log: Log; firstMs?: number | undefined; mostMs?: number | undefined },
  ) {
    this.#api = api;
    this.#uid = uid;
    this.#later = new Later((id) => this.#write(id), { log, firstMs, mostMs });
  }

  get trouble() {
    return this.#later.trouble;
  }

  append(upgradeId: string, items: readonly EndedConnection[], dropped: number): Promise<void> {
    const waiting = this.#waiting.get(upgradeId) ?? { items: [], dropped: 0 };
    // More than the reader would ever show need not be kept while nobody takes them.
    waiting.items.push(...items.slice(0, MAX_ENDED - waiting.items.length));
    waiting.dropped = Math.max(waiting.dropped, dropped);
    this.#waiting.set(upgradeId, waiting);
    return this.#later.soon(upgradeId);
  }

  async read(upgradeId: string): Promise<Ended> {
    await this.#later.flush(upgradeId);
    const uid = await this.#uid(upgradeId);
    if (uid === undefined) return { items: [], dropped: 0 };
    const chunks = await chunksOf(this.#api, uid, 'ended');
    const items = new Map(
      chunks.flatMap((chunk) => itemsOf(chunk.spec)).map((one) => [connectionKey(one.connection), one]),
    );
    const byTime = [...items.values()].sort((a, b) => a.at - b.at || (a.connection.id < b.connection.id ? -1 : 1));
    return { items: byTime.slice(0, MAX_ENDED), dropped: Math.max(0, ...chunks.map(({ spec }) => spec.dropped ?? 0)) };
  }

  forget(upgradeId: string): void {
    this.#kept.delete(upgradeId);
  }

  close(): Promise<void> {
    return this.#later.close(CLOSE_MS);
  }

  async #write(upgradeId: string): Promise<void> {
    const waiting = this.#waiting.get(upgradeId);
    if (waiting === undefined) return;
    const { items, dropped } = waiting;
    const count = items.length;
    const uid = await this.#uid(upgradeId);
    if (uid === undefined) {
      this.#waiting.delete(upgradeId);
      throw new SluiceError('INTERNAL', `no upgrade ${upgradeId} to keep ends of`);
    }
    await this.#append(upgradeId, uid, items.slice(0, count), dropped);
    // More may have come meanwhile.
    items.splice(0, count);
    if (items.length === 0 && waiting.dropped === dropped) this.#waiting.delete(upgradeId);
  }

  async #append(upgradeId: string, uid: string, items: readonly EndedConnection[], dropped: number): Promise<void> {
    try {
      const kept = await this.#load(upgradeId, uid);
      const fresh = new Map(
        items.map((one) => [connectionKey(one.connection), one] as const).filter(([key]) => !kept.keys.has(key)),
      );
      const left = [...fresh.values()].slice(0, MAX_ENDED - kept.keys.size);
      const owner = { name: objectName(upgradeId), uid };
      let more = dropped > kept.dropped;
      while (left.length > 0 || more) {
        more = false;
        const open = kept.last !== undefined && kept.last.items.length < CHUNK_ITEMS ? kept.last : undefined;
        const next = left.slice(0, CHUNK_ITEMS - (open?.items.length ?? 0));
        const all = [...(open?.items ?? []), ...next];
        const from = open?.from ?? kept.keys.size;
        const chunk = {
          of: upgradeId,
          part: 'ended' as const,
          from,
          count: all.length,
          dropped: Math.max(kept.dropped, dropped),
          items: pack(all),
        };
        const made = await putChunk(this.#api, PROXY_UPGRADES, owner, chunk, open);
        kept.last = { from, items: all, version: metadataOf(made).resourceVersion };
        kept.dropped = chunk.dropped;
        left.splice(0, next.length);
        for (const one of next) kept.keys.add(connectionKey(one.connection));
      }
    } catch (error) {
      // What is stored is not what we think, or we do not know: read it again.
      this.#kept.delete(upgradeId);
      if (isReason(error, 'Conflict', 'AlreadyExists', 'NotFound'))
        throw new SluiceError('KUBE_AWAY', `ends of ${upgradeId}: written by another one`, { cause: error });
      throw error;
    }
  }

  async #load(upgradeId: string, uid: string): Promise<Kept> {
    const known = this.#kept.get(upgradeId);
    if (known !== undefined) return known;
    const chunks = await chunksOf(this.#api, uid, 'ended');
    const all = chunks.map((chunk) => ({ chunk, items: itemsOf(chunk.spec) }));
    const last = all.at(-1);
    const kept: Kept = {
      keys: new Set(all.flatMap(({ items }) => items.map((one) => connectionKey(one.connection)))),
      last: last && { from: last.chunk.spec.from, items: last.items, version: metadataOf(last.chunk).resourceVersion },
      dropped: Math.max(0, ...chunks.map(({ spec }) => spec.dropped ?? 0)),
    };
    this.#kept.set(upgradeId, kept);
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > MAX_KNOWN && oldest !== undefined) this.#kept.delete(oldest);
    return kept;
  }
}

function itemsOf({ of, items }: ChunkSpec): readonly EndedConnection[] {
  return unpack(items, `ends of ${of}`);
}
