import { randomBytes } from 'node:crypto';
import type { EpochStatus } from '@sluice/contract';
import { SluiceError } from '@sluice/contract';
import { isReason } from '../kube/client.ts';
import { UID_LABEL } from '../kube/words.ts';
import type { Log } from '../log.ts';
import { MESH_PROXIES, metadataOf, PROXY_LABEL, type StateApi, type StateObject } from './resource-api.ts';
import { Later } from './resource-later.ts';
import { labelValue, objectName } from './resource-names.ts';
import { FORMAT, type Payload, pack, unpack } from './resource-payload.ts';
import type { AgentRow } from './store.ts';

export interface MeshProxySpec {
  readonly proxy: string;
  readonly format: number;
  readonly write: string;
  readonly serving: string;
  readonly draining: number;
  readonly podUid?: string;
  readonly replicas: string;
  readonly slots: readonly { readonly slot: string; readonly row: Payload }[];
}

const CLOSE_MS = 2_000;

interface Proxy {
  readonly rows: Map<string, AgentRow>;
  /** As they are stored, and which of them are not. */
  readonly written: Map<string, string>;
  object: { readonly uid: string; readonly version: string } | undefined;
  /** One is under way: what is told meanwhile is compared with it and not with the last one. */
  writing: boolean;
}

/**
 * What is known of each proxy's agents, one object a proxy. Written when something changed that counts: that an agent was heard
 * again is no such thing. What is told of one proxy within a moment is one write.
 */
export class MeshProxies {
  readonly #api: StateApi;
  readonly #proxies = new Map<string, Proxy>();
  readonly #later: Later;
  /** This replica, where there are several. */
  #self: string | undefined;

  constructor(
    api: StateApi,
    { log, firstMs = 200, mostMs = 2_000 }: { log: Log; firstMs?: number | undefined; mostMs?: number | undefined },
  ) {
    this.#api = api;
    this.#later = new Later((proxy) => this.#write(proxy), { log, firstMs, mostMs, parallel: 16 });
  }

  get trouble() {
    return this.#later.trouble;
  }

  async put(row: AgentRow): Promise<void> {
    const proxy = this.#proxy(row.proxy);
    this.#self = row.replica ?? this.#self;
    proxy.rows.set(row.slot, row);
    if (proxy.writing || proxy.written.get(row.slot) !== counted(row)) await this.#later.soon(row.proxy);
  }

  async all(): Promise<readonly AgentRow[]> {
    await this.#later.flush();
    const rows = (await this.#api.list<MeshProxySpec>(MESH_PROXIES)).flatMap(rowsOf);
    // Told here since it was written.
    return rows.map((row) => {
      const own = this.#proxies.get(row.proxy)?.rows.get(row.slot);
      return own !== undefined && own.seenAt > row.seenAt && counted(own) === counted(row) ? own : row;
    });
  }

  async forget(proxy: string): Promise<void> {
    this.#proxies.delete(proxy);
    await this.#api.delete(MESH_PROXIES, objectName(proxy));
  }

  close(): Promise<void> {
    return this.#later.close(CLOSE_MS);
  }

  #proxy(name: string): Proxy {
    const known = this.#proxies.get(name) ?? { rows: new Map(), written: new Map(), object: undefined, writing: false };
    this.#proxies.set(name, known);
    return known;
  }

  async #write(name: string): Promise<void> {
    const proxy = this.#proxy(name);
    let doubtful: readonly AgentRow[] = [];
    proxy.writing = true;
    try {
      const fresh = [...proxy.rows.values()].filter((row) => proxy.written.get(row.slot) !== counted(row));
      if (fresh.length === 0) return;
      const stored =
        proxy.object === undefined ? await this.#api.get<MeshProxySpec>(MESH_PROXIES, objectName(name)) : undefined;
      if (stored !== undefined) {
        proxy.object = version(stored);
        for (const row of rowsOf(stored)) {
          proxy.written.set(row.slot, counted(row));
          if (this.#isOthers(row, proxy.rows.get(row.slot))) proxy.rows.set(row.slot, row);
        }
      }
      const rows = ofOnePod([...proxy.rows.values()]);
      doubtful = rows.filter((row) => proxy.written.get(row.slot) !== counted(row));
      const labels = { [PROXY_LABEL]: labelValue(name) };
      const metadata = { name: objectName(name), labels };
      const made =
        proxy.object === undefined
          ? await this.#api.create(MESH_PROXIES, { metadata }, specOf(name, rows))
          : await this.#api.replace(
              MESH_PROXIES,
              { metadata: { ...metadata, uid: proxy.object.uid, resourceVersion: proxy.object.version } },
              specOf(name, rows),
            );
      proxy.object = version(made);
      for (const row of rows) proxy.written.set(row.slot, counted(row));
    } catch (error) {
      // Another replica wrote it, or it is not known whether we did: what is stored is read again, and ours laid over it.
      for (const { slot } of doubtful) proxy.written.delete(slot);
      this.#reread(proxy);
      if (isReason(error, 'Conflict', 'AlreadyExists', 'NotFound'))
        throw new SluiceError('KUBE_AWAY', `agents of ${name}: written by another one`, { cause: error });
      throw error;
    } finally {
      proxy.writing = false;
    }
  }

  /** An agent may be linked to another replica; that its link here has ended says nothing then. */
  #isOthers(stored: AgentRow, own: AgentRow | undefined): boolean {
    if (own === undefined) return true;
    return own.replica === undefined && stored.replica !== undefined && stored.replica !== this.#self;
  }

  #reread(proxy: Proxy): void {
    proxy.object = undefined;
    for (const [slot, row] of proxy.rows) {
      // Only what was told here and is not written yet is ours to say.
      if (proxy.written.get(slot) === counted(row)) proxy.rows.delete(slot);
    }
  }
}

/** Of a Pod that was made anew under the same name, what the old one's agents said counts no more. */
function ofOnePod(rows: readonly AgentRow[]): readonly AgentRow[] {
  const newest = rows.reduce<AgentRow | undefined>(
    (a, b) => (a !== undefined && a.seenAt >= b.seenAt ? a : b),
    undefined,
  );
  const uid = newest?.labels?.[UID_LABEL];
  return uid === undefined ? rows : rows.filter(({ labels }) => labels?.[UID_LABEL] === uid);
}

function version(object: StateObject<unknown>): { uid: string; version: string } {
  const { uid, resourceVersion } = metadataOf(object);
  return { uid, version: resourceVersion };
}

/** All of a row but when it was heard. */
function counted({ seenAt: _, ...row }: AgentRow): string {
  return JSON.stringify(row);
}

export function rowsOf({ spec }: Pick<StateObject<MeshProxySpec>, 'spec'>): readonly AgentRow[] {
  if (spec.format > FORMAT) return [];
  return spec.slots.map(({ slot, row }) => unpack<AgentRow>(row, `agent ${slot} of ${spec.proxy}`));
}

function specOf(proxy: string, rows: readonly AgentRow[]): MeshProxySpec {
  const all = rows.toSorted((a, b) => (a.slot < b.slot ? -1 : 1));
  const epochs = all.flatMap((row) => row.epochs);
  const serving = epochs.filter(is('serving')).sort((a, b) => b.epoch - a.epoch)[0];
  const podUid = all.map(({ labels }) => labels?.[UID_LABEL]).find((uid) => uid !== undefined);
  return {
    proxy,
    format: FORMAT,
    write: randomBytes(8).toString('hex'),
    serving: serving?.version ?? '',
    draining: epochs.filter(is('draining')).length,
    ...(podUid !== undefined && { podUid }),
    replicas: [...new Set(all.flatMap(({ replica }) => replica ?? []))].join(','),
    slots: all.map((row) => ({ slot: row.slot, row: pack(row) })),
  };
}

const is =
  (state: EpochStatus['state']) =>
  (epoch: EpochStatus): boolean =>
    epoch.state === state;
