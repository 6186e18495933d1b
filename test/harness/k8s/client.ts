import { readFileSync } from 'node:fs';
import https from 'node:https';
import {
  AppsV1Api,
  CoordinationV1Api,
  CoreV1Api,
  CustomObjectsApi,
  type KubeConfig,
  type KubernetesObject,
  Watch,
} from '@kubernetes/client-node';
import { until } from '../process.ts';

const FIELD_MANAGER = 'sluice-test';
const REQUEST_MS = 30_000;
const WATCH_AGAIN_MS = 100;

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
  /** By apiVersion: what `GET /apis/...` says of its kinds. */
  private readonly kinds = new Map<string, { kind: string; name: string; namespaced: boolean }[]>();

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
    let controller: AbortController | undefined;
    let timer: NodeJS.Timeout | undefined;
    let done = false;
    const query = fieldSelector === undefined ? {} : { fieldSelector };
    try {
      return await new Promise<R>((resolve, reject) => {
        const late = () => reject(new Error(`${path}: not within ${limitMs} ms; last seen: ${JSON.stringify(last)}`));
        timer = setTimeout(late, limitMs);
        const seen = (type: string, object: T) => {
          last = object;
          // A Status and no object; the API server ends the watch after it.
          if (type === 'ERROR') return;
          try {
            const found = check({ type: type as WatchEvent<T>['type'], object });
            if (found !== undefined) resolve(found);
          } catch (error) {
            reject(error);
          }
        };
        // The API server ends a watch when it likes, that of the CRDs each time one of them changes what it serves.
        const ended = (error: unknown) => {
          if (error !== null && error !== undefined) reject(error);
          else if (!done) setTimeout(open, WATCH_AGAIN_MS);
        };
        const open = () => {
          if (done) return;
          new Watch(this.config()).watch(path, query, seen, ended).then((opened) => {
            controller = opened;
            if (done) opened.abort();
          }, reject);
        };
        open();
      });
    } finally {
      done = true;
      clearTimeout(timer);
      controller?.abort();
    }
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
    if (find() === undefined) {
      const { resources } = await this.json<{ resources: { kind: string; name: string; namespaced: boolean }[] }>(
        'GET',
        root,
      );
      this.kinds.set(apiVersion, resources);
    }
    const found = find();
    if (found === undefined) throw new Error(`the API server knows no ${kind} of ${apiVersion}`);
    const space = found.namespaced ? `/namespaces/${metadata?.namespace ?? 'default'}` : '';
    return `${root}${space}/${found.name}${metadata?.name === undefined ? '' : `/${metadata.name}`}`;
  }

  private async request(method: string, path: string, body?: unknown, type?: string): Promise<string> {
    const cluster = this.config().getCurrentCluster();
    if (cluster === null) throw new Error('no cluster is known yet');
    // One pool of connections: a handshake for each request would cost more than the request.
    this.agent ??= new https.Agent({ keepAlive: true, maxSockets: 32, ca: readFileSync(cluster.caFile ?? '') });
    const headers: Record<string, string> = { authorization: `Bearer ${this.config().getCurrentUser()?.token}` };
    if (body !== undefined && type !== undefined) headers['content-type'] = type;
    const options: https.RequestOptions = { method, timeout: REQUEST_MS, headers, agent: this.agent };
    const { code, text } = await new Promise<{ code: number; text: string }>((resolve, reject) => {
      const request = https.request(`${cluster.server}${path}`, options, (response) => {
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
}

function said(text: string): string | undefined {
  try {
    return (JSON.parse(text) as { message?: string }).message;
  } catch {
    return text.split('\n', 1)[0];
  }
}
