import { readFileSync } from 'node:fs';
import type { ClientRequest, IncomingMessage } from 'node:http';
import https from 'node:https';
import { createInterface } from 'node:readline';
import {
  AppsV1Api,
  CoordinationV1Api,
  CoreV1Api,
  CustomObjectsApi,
  type KubeConfig,
  type KubernetesObject,
} from '@kubernetes/client-node';
import { until } from '../process.ts';

const FIELD_MANAGER = 'sluice-test';
const REQUEST_MS = 30_000;
const DISCOVERY_MS = 10_000;
const WATCH_AGAIN_MS = 100;

interface Kind {
  readonly kind: string;
  readonly name: string;
  readonly namespaced: boolean;
}

export interface WatchEvent<T> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  readonly object: T;
}

/** How a patch is merged: `strategic` knows that containers are a map by name, for the API server's own kinds only. */
export type PatchType = 'strategic' | 'merge' | 'json' | 'apply';
const PATCH_TYPES: Readonly<Record<PatchType, string>> = {
  strategic: 'application/strategic-merge-patch+json',
  merge: 'application/merge-patch+json',
  json: 'application/json-patch+json',
  // YAML, says its name: JSON is YAML.
  apply: 'application/apply-patch+yaml',
};

/** An answer above 299: the message of the API server, and its status code. */
export class ApiError extends Error {
  readonly code: number;
  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/**
 * What tests ask the API server. Objects are sent as they are written: the library's own object API loses each field whose name
 * has a dash, such as a CRD's `x-kubernetes-validations`. The library's typed APIs are at hand for the rest.
 */
export class Client {
  private readonly config: () => KubeConfig;
  private agent: https.Agent | undefined;
  private ca: Buffer | undefined;
  /** By apiVersion: what `GET /apis/...` says of its kinds. */
  private readonly kinds = new Map<string, Kind[]>();

  constructor(config: () => KubeConfig) {
    this.config = config;
  }

  get core(): CoreV1Api {
    return this.config().makeApiClient(CoreV1Api);
  }

  get apps(): AppsV1Api {
    return this.config().makeApiClient(AppsV1Api);
  }

  get coordination(): CoordinationV1Api {
    return this.config().makeApiClient(CoordinationV1Api);
  }

  get custom(): CustomObjectsApi {
    return this.config().makeApiClient(CustomObjectsApi);
  }

  /** Ends idle connections, which would keep the process alive. */
  close(): void {
    this.agent?.destroy();
    this.agent = undefined;
  }

  /** Server-side apply of one object. */
  async apply<T extends KubernetesObject>(object: T): Promise<T> {
    const path = `${await this.pathOf(object)}?fieldManager=${FIELD_MANAGER}&force=true`;
    return this.json<T>('PATCH', path, object, PATCH_TYPES.apply);
  }

  /** @param change what is patched; for `json` a list of operations. @param subresource such as `status` */
  async patch<T extends KubernetesObject>(
    object: KubernetesObject,
    change: unknown,
    { type = 'strategic', subresource }: { type?: PatchType; subresource?: string } = {},
  ): Promise<T> {
    const path = `${await this.pathOf(object)}${subresource === undefined ? '' : `/${subresource}`}`;
    return this.json<T>('PATCH', `${path}?fieldManager=${FIELD_MANAGER}`, change, PATCH_TYPES[type]);
  }

  async get<T extends KubernetesObject>(object: KubernetesObject): Promise<T> {
    return this.json<T>('GET', await this.pathOf(object));
  }

  /** @param graceSeconds of Pods: 0 takes it away without asking its kubelet */
  async delete(object: KubernetesObject, graceSeconds?: number): Promise<void> {
    const query = graceSeconds === undefined ? '' : `?gracePeriodSeconds=${graceSeconds}`;
    await this.json('DELETE', `${await this.pathOf(object)}${query}`);
  }

  /** Resolves when that object is gone. Asked again and again: a watch that opens after its end never tells of it. */
  async gone(object: KubernetesObject, limitMs = 60_000): Promise<void> {
    const { uid } = object.metadata ?? {};
    const look = async () => {
      try {
        const { metadata } = await this.get(object);
        return uid !== undefined && metadata?.uid !== uid ? true : undefined;
      } catch (error) {
        if (error instanceof ApiError && error.code === 404) return true;
        throw error;
      }
    };
    await until(`the end of ${object.kind} ${object.metadata?.name}`, look, { limitMs, everyMs: 100 });
  }

  /**
   * Watches a collection until `check` gives something for one of its objects. It sees the objects that exist as ADDED first.
   * @param path as `/api/v1/namespaces/default/pods`
   * @throws Error with the last object that it saw, when it takes longer than `limitMs`
   */
  async watch<T extends KubernetesObject, R>(
    path: string,
    check: (event: WatchEvent<T>) => R | undefined,
    { limitMs = 30_000, fieldSelector }: { limitMs?: number; fieldSelector?: string } = {},
  ): Promise<R> {
    let last: T | undefined;
    let timer: NodeJS.Timeout | undefined;
    let stop = () => {};
    try {
      return await new Promise<R>((resolve, reject) => {
        const late = () => reject(new Error(`${path}: not within ${limitMs} ms; last seen: ${JSON.stringify(last)}`));
        timer = setTimeout(late, limitMs);
        const seen = (event: WatchEvent<T>) => {
          last = event.object;
          const found = check(event);
          if (found !== undefined) resolve(found);
        };
        stop = this.events<T>(path, seen, {
          onError: reject,
          ...(fieldSelector === undefined ? {} : { fieldSelector }),
        });
      });
    } finally {
      clearTimeout(timer);
      stop();
    }
  }

  /**
   * Tells the events of a collection until the function that it returns is called. The API server ends a watch when it likes (that
   * of the CRDs each time one of them changes what it serves): it is opened again, and the objects that exist are ADDED again.
   * Without `onError` it is also opened again after an error. (The library's own watch ends when nothing happens for 30 s.)
   */
  events<T extends KubernetesObject>(
    path: string,
    seen: (event: WatchEvent<T>) => void,
    { fieldSelector, onError }: { fieldSelector?: string; onError?: (error: Error) => void } = {},
  ): () => void {
    let request: ClientRequest | undefined;
    let stopped = false;
    const query = new URLSearchParams({ watch: 'true', ...(fieldSelector === undefined ? {} : { fieldSelector }) });
    const again = (error?: Error) => {
      request = undefined;
      if (stopped) return;
      if (error !== undefined && onError !== undefined) onError(error);
      else setTimeout(open, WATCH_AGAIN_MS);
    };
    const tell = (line: string) => {
      try {
        const event = JSON.parse(line) as WatchEvent<T> | { type: 'ERROR' };
        // An ERROR has a Status and no object; the API server ends the watch after it.
        if (!stopped && event.type !== 'ERROR') seen(event);
      } catch (error) {
        if (onError === undefined) throw error;
        onError(error as Error);
      }
    };
    const open = () => {
      if (stopped) return;
      let answered = false;
      request = this.open('GET', `${path}?${query}`, { agent: false }, (response) => {
        answered = true;
        if (response.statusCode !== 200) {
          response.resume().once('close', () => again(new Error(`the watch of ${path}: ${response.statusCode}`)));
          return;
        }
        // The interface repeats the errors of its input; `close` comes after them.
        createInterface(response)
          .on('line', tell)
          .on('error', () => undefined);
        response.once('error', () => undefined).once('close', () => again());
      });
      // Once it is answered, the end of the answer tells of the end of the connection.
      request.once('error', (error) => answered || again(error));
      request.end();
    };
    open();
    return () => {
      stopped = true;
      request?.destroy();
    };
  }

  /** GET of any path, as text. */
  async text(path: string): Promise<string> {
    return this.request('GET', path);
  }

  /** Any call with JSON both ways. @throws ApiError */
  async json<T>(method: string, path: string, body?: unknown, type = 'application/json'): Promise<T> {
    return JSON.parse(await this.request(method, path, body, type)) as T;
  }

  /** The path of that object, or of its collection when it has no name. */
  async pathOf({ apiVersion = 'v1', kind, metadata }: KubernetesObject): Promise<string> {
    const root = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
    const find = () => this.kinds.get(apiVersion)?.find((known) => known.kind === kind && !known.name.includes('/'));
    // A new kind is served some moments before it is listed: another controller does that
    // (apiextensions-apiserver, customresource_discovery_controller.go).
    const found = await until(
      `the API server to know ${kind} of ${apiVersion}`,
      async () => {
        if (find() === undefined) this.kinds.set(apiVersion, await this.resourcesOf(root));
        return find();
      },
      { limitMs: DISCOVERY_MS, everyMs: 50 },
    );
    const space = found.namespaced ? `/namespaces/${metadata?.namespace ?? 'default'}` : '';
    return `${root}${space}/${found.name}${metadata?.name === undefined ? '' : `/${metadata.name}`}`;
  }

  private async resourcesOf(root: string): Promise<Kind[]> {
    try {
      return (await this.json<{ resources: Kind[] }>('GET', root)).resources;
    } catch (error) {
      if (error instanceof ApiError && error.code === 404) return [];
      throw error;
    }
  }

  private async request(method: string, path: string, body?: unknown, type?: string): Promise<string> {
    // One pool of connections: a handshake for each request would cost more than the request.
    this.agent ??= new https.Agent({ keepAlive: true, maxSockets: 32 });
    const options: https.RequestOptions = { agent: this.agent, timeout: REQUEST_MS };
    if (body !== undefined && type !== undefined) options.headers = { 'content-type': type };
    const { code, text } = await new Promise<{ code: number; text: string }>((resolve, reject) => {
      const request = this.open(method, path, options, (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          text += chunk;
        });
        response.once('end', () => resolve({ code: response.statusCode ?? 0, text })).once('error', reject);
      });
      request.once('timeout', () => request.destroy(new Error(`${path}: no answer`))).once('error', reject);
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
    if (code > 299) throw new ApiError(code, said(text) ?? `${method} ${path}: ${code}`);
    return text;
  }

  private open(
    method: string,
    path: string,
    options: https.RequestOptions,
    answered: (response: IncomingMessage) => void,
  ): ClientRequest {
    const cluster = this.config().getCurrentCluster();
    if (cluster === null) throw new Error('no cluster is known yet');
    const headers = { ...options.headers, authorization: `Bearer ${this.config().getCurrentUser()?.token}` };
    this.ca ??= readFileSync(cluster.caFile ?? '');
    return https.request(`${cluster.server}${path}`, { ...options, ca: this.ca, method, headers }, answered);
  }
}

function said(text: string): string | undefined {
  try {
    return (JSON.parse(text) as { message?: string }).message;
  } catch {
    return text.split('\n', 1)[0];
  }
}
