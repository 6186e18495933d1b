import { readFileSync } from 'node:fs';
import { wasmPath } from './index.ts';

// Node has it, its types do not; those of a browser would bring all of a browser.
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => { readonly exports: object };
};

/** A report as it was POSTed, to be answered once. */
export interface Call {
  readonly cluster: string;
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Uint8Array;
  /** `status` undefined: the call failed. */
  answer(status: number | undefined, body?: Uint8Array): void;
}

const OK = 0;
const NOT_FOUND = 1;
const BAD_ARGUMENT = 2;
const REQUEST_ROOT = { service: 1, connection: 2, upgrade: 3, drain: 4 } as const;

interface Context {
  readonly properties: Map<string, Uint8Array>;
}

interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer };
  _initialize(): void;
  malloc(size: number): number;
  proxy_on_vm_start(context: number, size: number): number;
  proxy_on_context_create(context: number, parent: number): void;
  proxy_on_configure(context: number, size: number): number;
  proxy_on_tick(context: number): void;
  proxy_on_http_call_response(context: number, token: number, headers: number, body: number, trailers: number): void;
  proxy_on_new_connection(context: number): number;
  proxy_on_downstream_connection_close(context: number, by: number): void;
  proxy_on_request_headers(context: number, headers: number, end: number): number;
  proxy_on_request_body(context: number, size: number, end: number): number;
  proxy_on_response_headers(context: number, headers: number, end: number): number;
  proxy_on_response_body(context: number, size: number, end: number): number;
  proxy_on_delete(context: number): void;
}

/**
 * One VM of the built filter in a host of ours, for tests: it behaves as Envoy's does, its clock and its agent are the
 * test's. Everything a hook may re-enter is re-entered at once, as in Envoy.
 */
export class FakeHost {
  /** Nanoseconds since 1970. */
  now = 1_700_000_000_000_000_000n;
  tickMs = 0;
  calls: Call[] = [];
  /** False: the host refuses calls at once, as it does for a cluster that it has not. */
  callable = true;
  readonly log: string[] = [];
  readonly #exports: Exports;
  readonly #contexts = new Map<number, Context>();
  #current = 0;
  #effective = 0;
  #next = 100;
  #configuration = new Uint8Array(0);
  #response: { readonly status: string; readonly body: Uint8Array } | undefined;

  /** @param epoch what node metadata says; undefined = it says nothing */
  constructor(epoch: number | undefined, seed = 1n) {
    const module = new WebAssembly.Module(readFileSync(wasmPath()));
    const instance = new WebAssembly.Instance(module, {
      env: this.#imports(),
      wasi_snapshot_preview1: {
        random_get: (at: number) => {
          this.#view.setBigUint64(at, seed, true);
          return OK;
        },
      },
    });
    this.#exports = instance.exports as unknown as Exports;
    this.#exports._initialize();
    for (const [name, context] of Object.entries(REQUEST_ROOT)) {
      this.#add(context, {
        plugin_root_id: name,
        ...(epoch !== undefined && { 'xds\0node\0metadata\0SLUICE_EPOCH': String(epoch) }),
      });
      this.#in(context, () => this.#exports.proxy_on_context_create(context, 0));
    }
    this.configure('service', '');
    this.configure('connection', '{"listener": "web", "kind": "http"}');
  }

  get memoryBytes(): number {
    return this.#exports.memory.buffer.byteLength;
  }

  configure(root: keyof typeof REQUEST_ROOT, configuration: string): number {
    this.#configuration = Buffer.from(configuration);
    const context = REQUEST_ROOT[root];
    return this.#in(context, () => this.#exports.proxy_on_configure(context, this.#configuration.length));
  }

  tick(): void {
    this.now += BigInt(this.tickMs) * 1_000_000n;
    this.#in(REQUEST_ROOT.service, () => this.#exports.proxy_on_tick(REQUEST_ROOT.service));
  }

  /** A new connection; its context. */
  open(id: bigint): number {
    const context = this.#next++;
    this.#add(context, {
      'source\0address': `10.0.0.1:${id}`,
      'destination\0address': '10.0.0.2:80',
      connection_id: id,
    });
    this.#in(context, () => {
      this.#exports.proxy_on_context_create(context, REQUEST_ROOT.connection);
      this.#exports.proxy_on_new_connection(context);
    });
    return context;
  }

  close(context: number, by: number): void {
    this.#in(context, () => {
      this.#exports.proxy_on_downstream_connection_close(context, by);
      this.#exports.proxy_on_delete(context);
    });
    this.#contexts.delete(context);
  }

  /** A request on a connection, seen by that part; its context. `route`: the name of its route. */
  request(
    part: 'upgrade' | 'drain',
    id: bigint,
    protocol: string,
    properties: Context['properties'] = new Map(),
    route = '',
  ): number {
    const context = this.#next++;
    this.#add(context, { connection_id: id, 'request\0protocol': protocol, 'xds\0route_name': route });
    for (const [key, value] of properties) this.#contexts.get(context)?.properties.set(key, value);
    this.#in(context, () => {
      this.#exports.proxy_on_context_create(context, REQUEST_ROOT[part]);
      this.#exports.proxy_on_request_headers(context, 5, 0);
    });
    return context;
  }

  /** What the parts of one stream share. */
  properties(context: number): Context['properties'] {
    return this.#contexts.get(context)?.properties ?? new Map();
  }

  /** Its response begins. True: the Lua filter in front would tell the connection to leave. */
  response(context: number): boolean {
    this.#in(context, () => this.#exports.proxy_on_response_headers(context, 3, 0));
    return this.properties(context).has('sluice.leave');
  }

  body(context: number, size: number): void {
    this.#in(context, () => this.#exports.proxy_on_response_body(context, size, 0));
  }

  end(context: number): void {
    this.#in(context, () => this.#exports.proxy_on_delete(context));
    this.#contexts.delete(context);
  }

  get #view(): DataView {
    return new DataView(this.#exports.memory.buffer);
  }

  #bytes(at: number, size: number): Uint8Array {
    return new Uint8Array(this.#exports.memory.buffer, at, size).slice();
  }

  #text(at: number, size: number): string {
    return Buffer.from(this.#bytes(at, size)).toString();
  }

  #give(value: Uint8Array, at: number, sizeAt: number): number {
    const to = this.#exports.malloc(value.length);
    new Uint8Array(this.#exports.memory.buffer).set(value, to);
    this.#view.setUint32(at, to, true);
    this.#view.setUint32(sizeAt, value.length, true);
    return OK;
  }

  #add(context: number, properties: Record<string, string | bigint>): void {
    const encoded = Object.entries(properties).map(([key, value]): [string, Uint8Array] => {
      if (typeof value === 'string') return [key, Buffer.from(value)];
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, value, true);
      return [key, bytes];
    });
    this.#contexts.set(context, { properties: new Map(encoded) });
  }

  #in<T>(context: number, run: () => T): T {
    const [current, effective] = [this.#current, this.#effective];
    [this.#current, this.#effective] = [context, 0];
    try {
      return run();
    } finally {
      [this.#current, this.#effective] = [current, effective];
    }
  }

  get #subject(): number {
    return this.#effective === 0 ? this.#current : this.#effective;
  }

  #call(cluster: string, headers: Uint8Array, body: Uint8Array): number {
    const token = this.#next++;
    const context = this.#subject;
    this.calls.push({
      cluster,
      headers: decodeHeaders(headers),
      body,
      answer: (status, reply = new Uint8Array(0)) => {
        this.#response = { status: String(status), body: reply };
        this.#in(context, () =>
          this.#exports.proxy_on_http_call_response(context, token, status === undefined ? 0 : 3, reply.length, 0),
        );
        this.#response = undefined;
      },
    });
    return token;
  }

  #imports(): Record<string, (...args: number[]) => number> {
    return {
      proxy_log: (_level: number, at: number, size: number) => {
        this.log.push(this.#text(at, size));
        return OK;
      },
      proxy_get_property: (path: number, size: number, at: number, sizeAt: number) => {
        const value = this.#contexts.get(this.#subject)?.properties.get(this.#text(path, size));
        return value === undefined ? NOT_FOUND : this.#give(value, at, sizeAt);
      },
      proxy_set_property: (path: number, size: number, value: number, valueSize: number) => {
        this.properties(this.#subject).set(this.#text(path, size), this.#bytes(value, valueSize));
        return OK;
      },
      proxy_get_buffer_bytes: (kind: number, _start: number, max: number, at: number, sizeAt: number) => {
        const from = kind === 7 ? this.#configuration : kind === 4 ? this.#response?.body : undefined;
        return from === undefined ? NOT_FOUND : this.#give(from.subarray(0, max), at, sizeAt);
      },
      proxy_get_header_map_value: (kind: number, key: number, size: number, at: number, sizeAt: number) => {
        if (kind !== 6 || this.#text(key, size) !== ':status' || !this.#response) return NOT_FOUND;
        return this.#give(Buffer.from(this.#response.status), at, sizeAt);
      },
      proxy_http_call: (
        cluster: number,
        clusterSize: number,
        headers: number,
        headersSize: number,
        body: number,
        bodySize: number,
        _trailers: number,
        _trailersSize: number,
        _timeout: number,
        token: number,
      ) => {
        if (!this.callable) return BAD_ARGUMENT;
        const number = this.#call(
          this.#text(cluster, clusterSize),
          this.#bytes(headers, headersSize),
          this.#bytes(body, bodySize),
        );
        this.#view.setUint32(token, number, true);
        return OK;
      },
      proxy_set_tick_period_milliseconds: (ms: number) => {
        this.tickMs = ms;
        return OK;
      },
      proxy_get_current_time_nanoseconds: (at: number) => {
        this.#view.setBigUint64(at, this.now, true);
        return OK;
      },
      proxy_set_effective_context: (context: number) => {
        if (!this.#contexts.has(context)) return BAD_ARGUMENT;
        this.#effective = context;
        return OK;
      },
      proxy_close_stream: () => {
        // Envoy says at once that the connection is closed, while the hook that asked for it is still running.
        this.close(this.#subject, 1);
        return OK;
      },
    };
  }
}

function decodeHeaders(map: Uint8Array): Map<string, string> {
  const view = new DataView(map.buffer, map.byteOffset, map.byteLength);
  const count = view.getUint32(0, true);
  const headers = new Map<string, string>();
  let at = 4 + count * 8;
  const next = (size: number) => {
    const text = Buffer.from(map.subarray(at, at + size)).toString();
    at += size + 1;
    return text;
  };
  for (let i = 0; i < count; i++) {
    const name = next(view.getUint32(4 + i * 8, true));
    headers.set(name, next(view.getUint32(8 + i * 8, true)));
  }
  return headers;
}
