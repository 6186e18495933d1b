import type { KubernetesObject } from '@kubernetes/client-node';
import { SluiceError } from '@sluice/contract';
import { Backoff, pause } from '../kube/backoff.ts';
import { isReason, type Kind, type KubeClient, KubeError, pathOf } from '../kube/client.ts';
import { API_VERSION } from '../kube/crds.ts';

const kind = (name: string, plural: string): Kind => ({ apiVersion: API_VERSION, kind: name, plural });

export const MESH_PROXIES = kind('MeshProxy', 'meshproxies');
export const PROXY_UPGRADES = kind('ProxyUpgrade', 'proxyupgrades');
export const PROXY_ROLLOUTS = kind('ProxyRollout', 'proxyrollouts');
export const RECORD_CHUNKS = kind('RecordChunk', 'recordchunks');

/** On an object of the state: what it belongs to. */
export const PROXY_LABEL = 'sluice.dev/proxy';
export const OWNER_LABEL = 'sluice.dev/owner';

/** An API server that does not answer is away after this long: its client waits longer, but nothing goes on meanwhile. */
const CALL_MS = 10_000;

export interface StateObject<S> extends KubernetesObject {
  spec: S;
}

export interface Metadata {
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
}

/** Calls about the state, in the controller's own namespace. All reject with a SluiceError; KUBE_AWAY: try again. */
export class StateApi {
  readonly #client: KubeClient;
  readonly namespace: string;
  /** Calls so far, by verb and kind. */
  readonly calls: Record<string, number> = {};

  constructor(client: KubeClient, namespace: string) {
    this.#client = client;
    this.namespace = namespace;
  }

  get client(): KubeClient {
    return this.#client;
  }

  /** undefined: there is none. */
  async get<S>(of: Kind, name: string): Promise<StateObject<S> | undefined> {
    try {
      return await this.#call('get', of, (signal) =>
        this.#client.get<StateObject<S>>(of, { namespace: this.namespace, name }, signal),
      );
    } catch (error) {
      if (isReason(error, 'NotFound')) return undefined;
      throw error;
    }
  }

  async list<S>(of: Kind, labels?: string): Promise<readonly StateObject<S>[]> {
    const place = { namespace: this.namespace };
    return (await this.#call('list', of, (signal) => this.#client.list<StateObject<S>>(of, place, { labels }, signal)))
      .items;
  }

  create<S>(of: Kind, object: KubernetesObject, spec: S): Promise<StateObject<S>> {
    return this.#call('create', of, (signal) => this.#client.create(of, this.#object(of, object, spec), signal));
  }

  replace<S>(of: Kind, object: KubernetesObject, spec: S): Promise<StateObject<S>> {
    return this.#call('update', of, (signal) => this.#client.replace(of, this.#object(of, object, spec), signal));
  }

  /** One that is gone already is no error. What it owns goes too, a while later: that is the garbage collector's. */
  async delete(of: Kind, name: string): Promise<void> {
    const path = pathOf(of, { namespace: this.namespace, name });
    try {
      await this.#call('delete', of, (signal) =>
        this.#client.json('DELETE', path, { body: { propagationPolicy: 'Background' }, signal }),
      );
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
    }
  }

  /** Rejects where the API server is away or does not know our kinds. */
  async ping(of: Kind, limitMs: number): Promise<void> {
    const path = pathOf(of, { namespace: this.namespace }, { limit: '1' });
    await this.#call('list', of, (signal) => this.#client.json('GET', path, { signal }), limitMs);
  }

  #object<S>({ apiVersion, kind }: Kind, { metadata }: KubernetesObject, spec: S): StateObject<S> {
    return { apiVersion, kind, metadata: { ...metadata, namespace: this.namespace }, spec } as StateObject<S>;
  }

  async #call<T>(
    verb: string,
    of: Kind,
    call: (signal: AbortSignal) => Promise<T>,
    limitMs: number = CALL_MS,
  ): Promise<T> {
    const key = `${verb} ${of.plural}`;
    const limit = AbortSignal.timeout(limitMs);
    const backoff = new Backoff(50, 1_000);
    for (;;) {
      this.calls[key] = (this.calls[key] ?? 0) + 1;
      try {
        return await call(limit);
      } catch (error) {
        // It was not looked at: overloaded, or the kind is only being made known. The API server asks for another try.
        const busy = error instanceof KubeError && error.status === 429;
        if (busy) await pause(backoff.next(), limit);
        if (!busy || limit.aborted) throw stateError(error, of, limitMs);
      }
    }
  }
}

/** An own write that may have happened although nobody answered is told from another one by its error: KUBE_AWAY. */
function stateError(error: unknown, { kind, apiVersion }: Kind, limitMs: number): unknown {
  if (error instanceof KubeError) {
    // Not there yet, overloaded, or without its etcd: https://kubernetes.io/docs/reference/using-api/api-concepts/
    if (error.status >= 500 || error.status === 429)
      return new SluiceError('KUBE_AWAY', error.message, { cause: error });
    // An API server that starts knows nobody's rights yet, and nobody: what is refused now it takes a second later.
    if (error.status === 401 || error.status === 403) {
      const hint = 'where it stays so: has the controller the rights of deploy/rbac?';
      return new SluiceError('KUBE_AWAY', error.message, { cause: error, hint });
    }
    if (error.status === 413) return new SluiceError('TOO_LARGE', `${kind}: ${error.message}`, { cause: error });
    // Of an object that is missing it says which; of a kind that is missing it says nothing.
    if (error.status === 404 && error.message.includes('could not find the requested resource')) {
      return new SluiceError('CONFIG_INVALID', `the cluster knows no ${kind} of ${apiVersion}`, {
        cause: error,
        hint: 'apply deploy/crds',
      });
    }
    return error;
  }
  if (error instanceof SluiceError) return error;
  const { name, message } = error as Error;
  const why = name === 'AbortError' || name === 'TimeoutError' ? `no answer within ${limitMs / 1000} s` : message;
  return new SluiceError('KUBE_AWAY', `${kind}: ${why}`, { cause: error });
}

export function metadataOf({ metadata }: KubernetesObject): Metadata {
  const { name = '', uid = '', resourceVersion = '' } = metadata ?? {};
  return { name, uid, resourceVersion };
}
