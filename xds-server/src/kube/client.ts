import type { IncomingMessage } from 'node:http';
import https from 'node:https';
import type { KubeConfig, KubernetesObject, V1Status } from '@kubernetes/client-node';
import { NdjsonDecoder, SluiceError } from '@sluice/contract';

export const FIELD_MANAGER = 'sluice-controller';
const REQUEST_MS = 30_000;
/** The API server sends a bookmark about each minute: a watch that is silent for longer leads nowhere any more. */
const WATCH_SILENT_MS = 150_000;
const MAX_ANSWER_BYTES = 256 * 1024 * 1024;
/** etcd takes 1.5 MiB an object; JSON and managed fields come on top. */
const MAX_EVENT_BYTES = 8 * 1024 * 1024;
const PAGE = 500;
const MAX_SOCKETS = 100;
const LEASE_SOCKETS = 8;
const IDLE_MS = 60_000;

/** How a patch is merged: `strategic` knows that containers are a map by name, for Kubernetes' own kinds only. */
export type PatchType = 'strategic' | 'merge' | 'json' | 'apply';
const PATCH_TYPES: Readonly<Record<PatchType, string>> = {
  strategic: 'application/strategic-merge-patch+json',
  merge: 'application/merge-patch+json',
  json: 'application/json-patch+json',
  // JSON is YAML.
  apply: 'application/apply-patch+yaml',
};

/** What the API server refused. `status` is that of HTTP; `reason` such as Conflict, NotFound, Invalid, Expired, Forbidden. */
export class KubeError extends SluiceError {
  readonly status: number;
  readonly reason: string;

  constructor(status: number, reason: string, message: string) {
    super('KUBE_REFUSED', message);
    this.status = status;
    this.reason = reason;
  }
}

export function isReason(thrown: unknown, ...reasons: readonly string[]): thrown is KubeError {
  return thrown instanceof KubeError && reasons.includes(thrown.reason);
}

/** One kind of object. */
export interface Kind {
  /** `v1`, or `GROUP/VERSION`. */
  readonly apiVersion: string;
  readonly kind: string;
  readonly plural: string;
}

export const PODS: Kind = { apiVersion: 'v1', kind: 'Pod', plural: 'pods' };
export const LEASES: Kind = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', plural: 'leases' };
export const EVENTS: Kind = { apiVersion: 'events.k8s.io/v1', kind: 'Event', plural: 'events' };

export interface Place {
  /** All namespaces when absent. */
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
  readonly subresource?: string | undefined;
}

export interface ListPage<T> {
  readonly items: readonly T[];
  readonly resourceVersion: string;
}

export interface WatchEvent {
  readonly type: string;
  readonly object: KubernetesObject;
}

export interface Selection {
  readonly labels?: string | undefined;
  readonly fields?: string | undefined;
}

/**
 * What we ask the API server. Objects are sent and come as they are written: the library's object API loses fields whose
 * names have a dash. Of the library we use what it knows of kubeconfig files, certificates and tokens.
 */
export class KubeClient {
  readonly #config: KubeConfig;
  /** The library's own opens a connection, with its TLS handshake, for each call. The API server closes idle ones after 90 s. */
  readonly #agent = new https.Agent({ keepAlive: true, maxSockets: MAX_SOCKETS, timeout: IDLE_MS });
  /**
   * Of Leases: behind thousands of other calls a renewal came later than the term lasts, and the leader of a large fleet stepped down
   * in the middle of it. So client-go's users give the election a client of its own.
   */
  readonly #leases = new https.Agent({ keepAlive: true, maxSockets: LEASE_SOCKETS, timeout: IDLE_MS });

  constructor(config: KubeConfig) {
    this.#config = config;
  }

  get<T extends KubernetesObject>(kind: Kind, place: Place, signal?: AbortSignal): Promise<T> {
    return this.json('GET', pathOf(kind, place), { signal });
  }

  create<T extends KubernetesObject>(kind: Kind, object: T, signal?: AbortSignal): Promise<T> {
    const { namespace } = object.metadata ?? {};
    return this.json('POST', pathOf(kind, { namespace }, { fieldManager: FIELD_MANAGER }), { body: object, signal });
  }

  /** Replaces the object; refused with Conflict when its resourceVersion is not the stored one. */
  replace<T extends KubernetesObject>(kind: Kind, object: T, signal?: AbortSignal): Promise<T> {
    const { namespace, name } = object.metadata ?? {};
    const path = pathOf(kind, { namespace, name }, { fieldManager: FIELD_MANAGER });
    return this.json('PUT', path, { body: object, signal });
  }

  patch<T extends KubernetesObject>(
    kind: Kind,
    place: Place,
    type: Exclude<PatchType, 'apply'>,
    change: unknown,
    signal?: AbortSignal,
  ): Promise<T> {
    const path = pathOf(kind, place, { fieldManager: FIELD_MANAGER });
    return this.json('PATCH', path, { body: change, type: PATCH_TYPES[type], signal });
  }

  /** Server-side apply: our fields are ours, others' stay; fields that do not exist are refused. `subresource`: such as `status`. */
  apply<T extends KubernetesObject>(
    kind: Kind,
    object: T,
    { subresource, dryRun = false, signal }: { subresource?: string; dryRun?: boolean; signal?: AbortSignal } = {},
  ): Promise<T> {
    const { namespace, name } = object.metadata ?? {};
    const query = {
      fieldManager: FIELD_MANAGER,
      force: 'true',
      fieldValidation: 'Strict',
      ...(dryRun && { dryRun: 'All' }),
    };
    const path = pathOf(kind, { namespace, name, subresource }, query);
    return this.json('PATCH', path, { body: object, type: PATCH_TYPES.apply, signal });
  }

  /** Every object, in pages. */
  async list<T extends KubernetesObject>(
    kind: Kind,
    { namespace }: Place,
    selection: Selection = {},
    signal?: AbortSignal,
  ): Promise<ListPage<T>> {
    const items: T[] = [];
    let token: string | undefined;
    for (;;) {
      const query = { ...queryOf(selection), limit: String(PAGE), ...(token !== undefined && { continue: token }) };
      const page = await this.json<{ metadata: { resourceVersion: string; continue?: string }; items: T[] }>(
        'GET',
        pathOf(kind, { namespace }, query),
        { signal },
      );
      // The items of a list do not say what they are.
      for (const item of page.items) items.push({ ...item, apiVersion: kind.apiVersion, kind: kind.kind });
      token = page.metadata.continue || undefined;
      if (token === undefined) return { items, resourceVersion: page.metadata.resourceVersion };
    }
  }

  /** The events after that version, bookmarks too; resolves when the API server ends the watch. An ERROR rejects with KubeError. */
  async watch(
    kind: Kind,
    { namespace }: Place,
    { resourceVersion, timeoutSeconds, ...selection }: Selection & { resourceVersion: string; timeoutSeconds: number },
    onEvent: (event: WatchEvent) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const query = {
      ...queryOf(selection),
      watch: 'true',
      allowWatchBookmarks: 'true',
      resourceVersion,
      timeoutSeconds: String(timeoutSeconds),
    };
    const response = await this.#open('GET', pathOf(kind, { namespace }, query), { signal }, WATCH_SILENT_MS);
    if ((response.statusCode ?? 0) > 299) throw refused(response.statusCode ?? 0, await read(response));
    const decoder = new NdjsonDecoder(MAX_EVENT_BYTES);
    for await (const chunk of response) {
      for (const event of decoder.push(chunk as Buffer) as unknown as WatchEvent[]) {
        if (event.type === 'ERROR') throw refused(500, JSON.stringify(event.object));
        onEvent(event);
      }
    }
  }

  /** Any call with JSON both ways. Rejects with KubeError, or with KUBE_AWAY when there is no answer. */
  async json<T>(method: string, path: string, request: Request = {}): Promise<T> {
    const response = await this.#open(method, path, request, REQUEST_MS);
    const text = await read(response);
    if ((response.statusCode ?? 0) > 299) throw refused(response.statusCode ?? 0, text);
    return JSON.parse(text) as T;
  }

  async #open(method: string, path: string, { body, type, signal }: Request, limitMs: number) {
    const cluster = this.#config.getCurrentCluster();
    if (cluster === null) throw new SluiceError('CONFIG_INVALID', 'kubeconfig: expected a current cluster, found none');
    const options: https.RequestOptions = { method, timeout: limitMs };
    await this.#config.applyToHTTPSOptions(options);
    // Certificates are in the options. A proxy has an agent of its own.
    if (options.agent?.constructor === https.Agent) {
      options.agent = path.startsWith(`/apis/${LEASES.apiVersion}/`) ? this.#leases : this.#agent;
    }
    const text = body === undefined ? undefined : JSON.stringify(body);
    options.headers = {
      ...options.headers,
      accept: 'application/json',
      'content-type': type ?? 'application/json',
      // Node sends the body of a DELETE without saying how long it is.
      ...(text !== undefined && { 'content-length': Buffer.byteLength(text) }),
    };
    if (signal !== undefined) options.signal = signal;
    return new Promise<IncomingMessage>((resolve, reject) => {
      const away = (error: Error) => {
        over();
        reject(
          signal?.aborted
            ? error
            : new SluiceError('KUBE_AWAY', `${method} ${path}: ${error.message}`, { cause: error }),
        );
      };
      const request = https.request(`${cluster.server}${path}`, options, (response) => {
        over();
        resolve(response);
      });
      // One that waits for a connection yet hears of its destruction only when it gets one: so its end is told from here too.
      const end = (error: Error) => {
        request.destroy(error);
        away(error);
      };
      const aborted = () => end(signal?.reason instanceof Error ? signal.reason : new Error('aborted'));
      const late = () => end(new Error(`no answer within ${limitMs / 1000} s`));
      const timer = setTimeout(late, limitMs);
      const over = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', aborted);
      };
      signal?.addEventListener('abort', aborted, { once: true });
      request.once('timeout', late);
      request.on('error', away);
      request.end(text);
    });
  }
}

interface Request {
  readonly body?: unknown;
  readonly type?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export function pathOf(
  { apiVersion, plural }: Kind,
  { namespace, name, subresource }: Place,
  query: Readonly<Record<string, string>> = {},
): string {
  const parts = [apiVersion.includes('/') ? '/apis' : '/api', apiVersion];
  if (namespace !== undefined) parts.push('namespaces', encodeURIComponent(namespace));
  parts.push(plural);
  if (name !== undefined) parts.push(encodeURIComponent(name));
  if (subresource !== undefined) parts.push(subresource);
  const text = new URLSearchParams(query).toString();
  return `${parts.join('/')}${text === '' ? '' : `?${text}`}`;
}

function queryOf({ labels, fields }: Selection): Record<string, string> {
  return {
    ...(labels !== undefined && { labelSelector: labels }),
    ...(fields !== undefined && { fieldSelector: fields }),
  };
}

async function read(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of response) {
      bytes += (chunk as Buffer).length;
      if (bytes > MAX_ANSWER_BYTES) throw new SluiceError('TOO_LARGE', `expected at most ${MAX_ANSWER_BYTES} bytes`);
      chunks.push(chunk as Buffer);
    }
  } catch (error) {
    if (error instanceof SluiceError || (error as Error).name === 'AbortError') throw error;
    throw new SluiceError('KUBE_AWAY', `the answer broke off: ${(error as Error).message}`, { cause: error });
  }
  return Buffer.concat(chunks).toString();
}

function refused(status: number, text: string): KubeError {
  let said: V1Status = {};
  try {
    said = JSON.parse(text) as V1Status;
  } catch {
    // A proxy's answer, or one of the API server while it starts: text.
  }
  const message = said.message ?? (text.split('\n', 1)[0] as string);
  return new KubeError(said.code ?? status, said.reason ?? 'Unknown', `the API server refused: ${message}`);
}
