import { Agent, type IncomingMessage, request } from 'node:http';

const TIMEOUT_MS = 1_000;
const MAX_BODY_BYTES = 16 * 1024 * 1024;

export interface Downstream {
  /** Sum of listener.*.downstream_cx_active without the admin listener's. */
  readonly open: number;
  /** Sum of http.*.downstream_rq_active, all HCMs, admin's not counted. */
  readonly requestsActive: number;
}

/**
 * One keep-alive connection to an epoch's admin, opened early and held: a draining epoch that handed its admin address on
 * accepts no new one, but answers on this (envoy-facts 6). One request at a time, each with a bound.
 */
export class AdminConnection {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1, keepAliveMsecs: 60_000 });
  readonly #target: { socketPath: string } | { host: string; port: number };

  /** `address`: path of a Unix socket, or `host:port`. */
  constructor(address: string) {
    const colon = address.lastIndexOf(':');
    this.#target = address.startsWith('/')
      ? { socketPath: address }
      : { host: address.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(address.slice(colon + 1)) };
  }

  async ready(): Promise<boolean> {
    return (await this.#call('GET', '/ready')).status === 200;
  }

  async get(path: string, timeoutMs = TIMEOUT_MS): Promise<string> {
    return this.#expect200('GET', path, timeoutMs);
  }

  async post(path: string, timeoutMs = TIMEOUT_MS): Promise<string> {
    return this.#expect200('POST', path, timeoutMs);
  }

  async downstream(): Promise<Downstream> {
    const text = await this.get('/stats?usedonly&filter=' + encodeURIComponent('downstream_(cx|rq)_active$'));
    let open = 0;
    let requestsActive = 0;
    for (const line of text.split('\n')) {
      const match = /^(.*)\.(downstream_cx_active|downstream_rq_active): (\d+)$/.exec(line);
      if (!match) continue;
      const [, scope = '', name, value] = match;
      // Per-worker gauges repeat the listener's own.
      if (
        name === 'downstream_cx_active' &&
        /^listener\./.test(scope) &&
        !/\.worker_\d+$|^listener\.admin/.test(scope)
      ) {
        open += Number(value);
      }
      if (name === 'downstream_rq_active' && /^http\./.test(scope) && scope !== 'http.admin')
        requestsActive += Number(value);
    }
    return { open, requestsActive };
  }

  close(): void {
    this.#agent.destroy();
  }

  async #expect200(method: string, path: string, timeoutMs: number): Promise<string> {
    const { status, body } = await this.#call(method, path, timeoutMs);
    if (status !== 200) throw new Error(`admin answered ${status} to ${method} ${path}`);
    return body;
  }

  #call(method: string, path: string, timeoutMs = TIMEOUT_MS): Promise<{ status: number; body: string }> {
    return new Promise((resolve, reject) => {
      const signal = AbortSignal.timeout(timeoutMs);
      const call = request({ ...this.#target, agent: this.#agent, method, path, signal }, (response) => {
        collect(response).then((body) => resolve({ status: response.statusCode ?? 0, body }), reject);
      });
      call.on('error', (error) => reject(signal.aborted ? new Error(`admin silent for ${timeoutMs} ms`) : error));
      call.end();
    });
  }
}

async function collect(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of response) {
    size += (part as Buffer).length;
    if (size > MAX_BODY_BYTES) throw new Error(`admin answered more than ${MAX_BODY_BYTES} bytes`);
    parts.push(part as Buffer);
  }
  return Buffer.concat(parts).toString('utf8');
}
