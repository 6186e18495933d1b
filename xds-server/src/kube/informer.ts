import type { KubernetesObject } from '@kubernetes/client-node';
import { type Log, SILENT } from '../log.ts';
import { Backoff, pause } from './backoff.ts';
import { isReason, type Kind, type KubeClient, type Place, type Selection } from './client.ts';

export interface InformerOptions extends Selection {
  readonly namespace?: string | undefined;
  /** Every object is given again so often, milliseconds; a list makes up for whatever was missed. */
  readonly resyncMs?: number;
  readonly backoff?: Backoff;
  readonly log?: Log;
}

export interface Handler<T> {
  /** `old` is undefined for a new one; the same object again at a resync. */
  changed(object: T, old: T | undefined): void;
  gone(object: T): void;
}

const RESYNC_MS = 10 * 60_000;

/**
 * A copy of a collection, kept up to date: list, then watch from there. When a watch ends it goes on from the last version that was
 * seen; when that is too old it lists again, and what is missing in the list is gone. The copy stays as it was while the API server
 * is away. All handlers run in one turn with the change of the copy.
 */
export class Informer<T extends KubernetesObject> {
  readonly #client: Pick<KubeClient, 'list' | 'watch'>;
  readonly #kind: Kind;
  readonly #options: InformerOptions;
  readonly #handler: Handler<T>;
  readonly #log: Log;
  readonly #backoff: Backoff;
  readonly #items = new Map<string, T>();
  #synced: () => void = () => undefined;
  /** Resolves after the first list. */
  readonly synced = new Promise<void>((resolve) => {
    this.#synced = resolve;
  });

  constructor(
    client: Pick<KubeClient, 'list' | 'watch'>,
    kind: Kind,
    handler: Handler<T>,
    options: InformerOptions = {},
  ) {
    this.#client = client;
    this.#kind = kind;
    this.#handler = handler;
    this.#options = options;
    this.#log = options.log ?? SILENT;
    this.#backoff = options.backoff ?? new Backoff();
  }

  get(namespace: string, name: string): T | undefined {
    return this.#items.get(`${namespace}/${name}`);
  }

  items(): readonly T[] {
    return [...this.#items.values()];
  }

  /** Runs until the signal is aborted; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { resyncMs = RESYNC_MS, labels, fields, namespace } = this.#options;
    const place: Place = { namespace };
    let version: string | undefined;
    let relistAt = 0;
    while (!signal.aborted) {
      try {
        if (version === undefined || Date.now() >= relistAt) {
          const page = await this.#client.list<T>(this.#kind, place, { labels, fields }, signal);
          this.#replace(page.items);
          version = page.resourceVersion;
          relistAt = Date.now() + resyncMs;
          this.#synced();
        }
        const from = version;
        const timeoutSeconds = Math.max(1, Math.ceil((relistAt - Date.now()) / 1000));
        const begun = Date.now();
        await this.#client.watch(
          this.#kind,
          place,
          { labels, fields, resourceVersion: from, timeoutSeconds },
          ({ type, object }) => {
            version = object.metadata?.resourceVersion ?? version;
            this.#backoff.reset();
            if (type !== 'BOOKMARK') this.#event(type, object as T);
          },
          signal,
        );
        // One that ends at once and says nothing is no better than a failed one.
        if (version === from && Date.now() - begun < 1000) await pause(this.#backoff.next(), signal);
      } catch (error) {
        if (signal.aborted) return;
        if (isReason(error, 'Expired', 'Gone')) version = undefined;
        const waitMs = this.#backoff.next();
        this.#log.warn({ kind: this.#kind.kind, error: (error as Error).message, waitMs }, 'watch: again later');
        await pause(waitMs, signal);
      }
    }
  }

  #replace(items: readonly T[]): void {
    const left = new Map(this.#items);
    for (const item of items) {
      left.delete(key(item));
      this.#event('MODIFIED', item);
    }
    for (const item of left.values()) this.#event('DELETED', item);
  }

  #event(type: string, object: T): void {
    const name = key(object);
    const old = this.#items.get(name);
    // Deleted and made again under the same name between two looks: two objects.
    if (old !== undefined && old.metadata?.uid !== object.metadata?.uid) {
      this.#items.delete(name);
      this.#handler.gone(old);
      if (type === 'DELETED') return;
      this.#items.set(name, object);
      this.#handler.changed(object, undefined);
    } else if (type === 'DELETED') {
      this.#items.delete(name);
      this.#handler.gone(object);
    } else {
      this.#items.set(name, object);
      this.#handler.changed(object, old);
    }
  }
}

function key({ metadata }: KubernetesObject): string {
  return `${metadata?.namespace ?? ''}/${metadata?.name}`;
}
