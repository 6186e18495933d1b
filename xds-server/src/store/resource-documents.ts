import { createHash, randomBytes } from 'node:crypto';
import { type ErrorCode, SluiceError } from '@sluice/contract';
import { isReason, type Kind } from '../kube/client.ts';
import { LATER_LEADER } from '../kube/schema.ts';
import { metadataOf, type StateApi, type StateObject } from './resource-api.ts';
import { chunksOf, putChunk } from './resource-chunks.ts';
import { objectName } from './resource-names.ts';
import { FORMAT, type Payload, pack, unpack } from './resource-payload.ts';

/** The newest entries are in the object itself; past this many bytes of JSON they go to a chunk of their own. */
const MAX_RECORD_BYTES = 131_072;
const MAX_IN_DOUBT = 10_000;
const MAX_KNOWN = 10_000;

export interface DocumentSpec {
  readonly id: string;
  readonly createdAt: number;
  readonly format: number;
  readonly write: string;
  readonly phase: string;
  readonly target?: string;
  readonly reason?: string;
  readonly state: Payload;
  readonly record: Payload;
  readonly spilled: number;
}

/** What is particular to one kind of document. */
export interface DocumentKind<S> {
  readonly kind: Kind;
  /** In messages. */
  readonly what: string;
  readonly conflict: ErrorCode;
  readonly labels: (state: S) => Readonly<Record<string, string>>;
  /** Fields of spec beside the payload, for people. */
  readonly columns: (state: S) => Pick<DocumentSpec, 'phase' | 'target' | 'reason'> & Readonly<Record<string, unknown>>;
  /** As it can be stored: one that is too large loses what is least worth keeping. */
  readonly fit: (state: S) => Payload;
  readonly isOver: (state: S) => boolean;
}

export interface StoredDocument<S> {
  readonly state: S;
  readonly version: string;
}

interface Known<E> {
  readonly uid: string;
  readonly version: string;
  readonly write: string;
  readonly record: readonly E[];
  readonly spilled: number;
}

/**
 * Upgrades or rollouts as custom resources: state and record in one object, so that they are written together, by
 * resourceVersion, so that of two writers one wins. A write whose answer was lost is known when it is tried again: it has the same
 * `write`, made of what it wants to write and of this process.
 */
export class Documents<
  S extends { readonly id: string; readonly createdAt: number },
  E extends { readonly seq: number },
> {
  readonly #api: StateApi;
  readonly #of: DocumentKind<S>;
  readonly #self = randomBytes(8).toString('hex');
  readonly #known = new Map<string, Known<E>>();
  /** Writes of ours that may have happened. */
  readonly #inDoubt = new Set<string>();

  constructor(api: StateApi, of: DocumentKind<S>) {
    this.#api = api;
    this.#of = of;
  }

  async insert(state: S, entries: readonly E[]): Promise<StoredDocument<S>> {
    const { kind, labels, what, conflict } = this.#of;
    const write = this.#write('', state, entries);
    const metadata = { name: objectName(state.id), labels: { ...labels(state) } };
    try {
      const made = await this.#sent(write, () =>
        this.#api.create(kind, { metadata }, this.#spec(state, write, entries, 0)),
      );
      if (made.spec.write !== write) throw tooOld(kind);
      return this.#wrote(state, made, entries);
    } catch (error) {
      if (isAway(error)) {
        const text = `${error.message}; ${what} ${state.id} may have been stored all the same`;
        throw new SluiceError('KUBE_AWAY', text, { cause: error });
      }
      if (!isReason(error, 'AlreadyExists')) throw error;
      const found = await this.#ours(state.id, write);
      if (found !== undefined) return { state, version: found.version };
      throw new SluiceError(conflict, `${what} ${state.id} exists already`);
    }
  }

  async update(state: S, expected: string, entries: readonly E[]): Promise<StoredDocument<S>> {
    const { kind, labels } = this.#of;
    const write = this.#write(expected, state, entries);
    let known = this.#known.get(state.id);
    if (known?.version !== expected) known = await this.#load(state.id);
    if (known?.version !== expected) {
      if (known !== undefined && this.#inDoubt.delete(write) && known.write === write) {
        return { state, version: known.version };
      }
      throw this.#conflict(state.id, expected, known?.version);
    }
    let { record, spilled } = known;
    if (record.length > 0 && JSON.stringify([...record, ...entries]).length > MAX_RECORD_BYTES) {
      await this.#spill(state.id, known);
      spilled += record.length;
      record = [];
    }
    const all = [...record, ...entries];
    const metadata = {
      name: objectName(state.id),
      uid: known.uid,
      resourceVersion: expected,
      labels: { ...labels(state) },
    };
    try {
      const spec = this.#spec(state, write, all, spilled);
      const made = await this.#sent(write, () => this.#api.replace(kind, { metadata }, spec));
      return this.#wrote(state, made, all, spilled);
    } catch (error) {
      if (!isReason(error, 'Conflict', 'NotFound') && !isLaterFence(error)) throw error;
      this.#known.delete(state.id);
      const found = await this.#ours(state.id, write);
      if (found !== undefined) return { state, version: found.version };
      throw this.#conflict(state.id, expected, (await this.#load(state.id))?.version);
    }
  }

  async get(id: string): Promise<StoredDocument<S> | undefined> {
    const object = await this.#api.get<DocumentSpec>(this.#of.kind, objectName(id));
    return object === undefined || object.spec.id !== id ? undefined : this.read(object);
  }

  /** Throws STATE_INVALID. */
  read(object: StateObject<DocumentSpec>): StoredDocument<S> {
    const name = `${this.#of.what} ${object.spec.id}`;
    if (object.spec.format > FORMAT) {
      throw new SluiceError(
        'STATE_INVALID',
        `${name}: expected format ${FORMAT} or older, found ${object.spec.format}`,
      );
    }
    return { state: unpack<S>(object.spec.state, name), version: metadataOf(object).resourceVersion };
  }

  async list(labels?: string): Promise<readonly StateObject<DocumentSpec>[]> {
    const all = await this.#api.list<DocumentSpec>(this.#of.kind, labels);
    return all.toSorted(({ spec: a }, { spec: b }) => b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1));
  }

  async record(id: string): Promise<readonly E[]> {
    const object = await this.#api.get<DocumentSpec>(this.#of.kind, objectName(id));
    if (object === undefined || object.spec.id !== id) return [];
    const what = `record of ${id}`;
    const newest = unpack<E[]>(object.spec.record, what);
    if (object.spec.spilled === 0) return newest;
    const chunks = await chunksOf(this.#api, metadataOf(object).uid, 'record');
    const before = chunks.flatMap(({ spec }) => unpack<E[]>(spec.items, what));
    // A chunk that was written before its object was may hold what the object holds too.
    const bySeq = new Map([...before, ...newest].map((one) => [one.seq, one]));
    return [...bySeq.values()].sort((a, b) => a.seq - b.seq);
  }

  async uid(id: string): Promise<string | undefined> {
    return (this.#known.get(id) ?? (await this.#load(id)))?.uid;
  }

  async delete(id: string): Promise<void> {
    this.#known.delete(id);
    await this.#api.delete(this.#of.kind, objectName(id));
  }

  /** What is stored, if this very write is what stored it. */
  async #ours(id: string, write: string): Promise<Known<E> | undefined> {
    if (!this.#inDoubt.has(write)) return undefined;
    const found = await this.#load(id);
    this.#inDoubt.delete(write);
    return found?.write === write ? found : undefined;
  }

  async #sent<T>(write: string, send: () => Promise<T>): Promise<T> {
    try {
      const answer = await send();
      this.#inDoubt.delete(write);
      return answer;
    } catch (error) {
      if (isAway(error)) {
        const [oldest] = this.#inDoubt;
        if (this.#inDoubt.size >= MAX_IN_DOUBT && oldest !== undefined) this.#inDoubt.delete(oldest);
        this.#inDoubt.add(write);
      }
      throw error;
    }
  }

  async #load(id: string): Promise<Known<E> | undefined> {
    const object = await this.#api.get<DocumentSpec>(this.#of.kind, objectName(id));
    if (object === undefined || object.spec.id !== id) return undefined;
    const { write, record, spilled } = object.spec;
    return this.#remember(id, object, write, unpack<E[]>(record, `record of ${id}`), spilled);
  }

  #remember(id: string, object: StateObject<unknown>, write: string, record: readonly E[], spilled: number): Known<E> {
    const { uid, resourceVersion } = metadataOf(object);
    const known = { uid, version: resourceVersion, write, record, spilled };
    this.#known.delete(id);
    this.#known.set(id, known);
    const [oldest] = this.#known.keys();
    if (this.#known.size > MAX_KNOWN && oldest !== undefined) this.#known.delete(oldest);
    return known;
  }

  #wrote(state: S, made: StateObject<DocumentSpec>, record: readonly E[], spilled = 0): StoredDocument<S> {
    const { version } = this.#remember(state.id, made, made.spec.write, record, spilled);
    if (this.#of.isOver(state)) this.#known.delete(state.id);
    return { state, version };
  }

  /** Before the object itself is written without them. Done twice after a crash: the same chunk. */
  async #spill(id: string, { uid, record }: Known<E>): Promise<void> {
    const from = record[0]?.seq ?? 0;
    const chunk = { of: id, part: 'record' as const, from, count: record.length, items: pack(record) };
    await putChunk(this.#api, this.#of.kind, { name: objectName(id), uid }, chunk, 'any');
  }

  #spec(state: S, write: string, record: readonly E[], spilled: number): DocumentSpec {
    const { columns, fit } = this.#of;
    const { id, createdAt } = state;
    return {
      id,
      createdAt,
      format: FORMAT,
      write,
      ...short(columns(state)),
      state: fit(state),
      record: pack(record),
      spilled,
    };
  }

  #write(expected: string, state: S, entries: readonly E[]): string {
    const text = JSON.stringify([this.#self, expected, state, entries]);
    return createHash('sha256').update(text).digest('hex').slice(0, 32);
  }

  #conflict(id: string, expected: string, found = 'none'): SluiceError {
    const { conflict, what } = this.#of;
    return new SluiceError(conflict, `${what} ${id}: expected version ${expected}, found ${found}`);
  }
}

function isAway(error: unknown): error is SluiceError {
  return error instanceof SluiceError && error.code === 'KUBE_AWAY';
}

/** A later leader wrote it, also where that write is not seen here. */
function isLaterFence(error: unknown): boolean {
  return isReason(error, 'Invalid') && error.message.includes(LATER_LEADER);
}

const MAX_LINE = 1024;

function short<T extends Readonly<Record<string, unknown>>>(columns: T): T {
  const cut = Object.entries(columns).map(([key, value]) => [
    key,
    typeof value === 'string' ? value.slice(0, MAX_LINE) : value,
  ]);
  return Object.fromEntries(cut) as T;
}

function tooOld({ kind }: Kind): SluiceError {
  return new SluiceError('CONFIG_INVALID', `the cluster's definition of ${kind} is older than this controller`, {
    hint: 'apply deploy/crds',
  });
}
