import { Agent, type IncomingMessage, request } from 'node:http';
import type { Socket } from 'node:net';

const TIMEOUT_MS = 1_000;
const MAX_BODY_BYTES = 16 * 1024 * 1024;

export interface Downstream {
  /** Sum of listener.*.downstream_cx_active without the admin listener's. */
  readonly open: number;
  /** Sum of http.*.downstream_rq_active, all HCMs, admin's not counted. */
  readonly requestsActive: number;
}

/** Whose admin it must be: an address that passes on from epoch to epoch answers for the newest. */
export interface AdminIdentity {
  readonly baseId: number;
  readonly restartEpoch: number;
}

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly socket: Socket;
}

/** Per-worker gauges repeat the listener's own; the admin's and internal listeners have no client behind them. */
const NOT_DOWNSTREAM = /\.worker_\d+$|^listener\.admin(\.main_thread)?$|^listener\.envoy_internal_/;

/**
 * One keep-alive connection to an epoch's admin, opened early and held: a draining epoch that handed its admin address on
 * accepts no new one, but answers on this (envoy-facts 6). One request at a time, each with a bound. With `expected` every
 * new connection is asked for whose it is before anything else; a stranger's answers are refused.
 */
export class AdminConnection {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1, keepAliveMsecs: 60_000 });
  readonly #target: { socketPath: string } | { host: string; port: number };
  readonly #expected: AdminIdentity | undefined;
  #known: Socket | undefined;

  /** `address`: path of a Unix socket, or `host:port`. */
  constructor(address: string, expected?: AdminIdentity) {
    const colon = address.lastIndexOf(':');
    this.#target = address.startsWith('/')
      ? { socketPath: address }
      : { host: address.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(address.slice(colon + 1)) };
    this.#expected = expected;
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

  /** Throws also when the stats are not there: a matcher that leaves them out must not pass for "none left". */
  async downstream(): Promise<Downstream> {
    const text = await this.get(
      `/stats?filter=${encodeURIComponent('^(listener|http)\\..*downstream_(cx|rq)_active$')}`,
    );
    if (!/^listener\..*downstream_cx_active: /m.test(text)) {
      throw new Error('admin shows no listener.*.downstream_cx_active; does a stats matcher leave it out?');
    }
    let open = 0;
    let requestsActive = 0;
    for (const line of text.split('\n')) {
      const match = /^(.*)\.(downstream_cx_active|downstream_rq_active): (\d+)$/.exec(line);
      if (!match) continue;
      const [, scope = '', name, value] = match;
      if (name === 'downstream_cx_active' && /^listener\./.test(scope) && !NOT_DOWNSTREAM.test(scope)) {
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

  async #call(method: string, path: string, timeoutMs = TIMEOUT_MS): Promise<Answer> {
    const signal = AbortSignal.timeout(timeoutMs);
    await this.#identify(signal);
    const answer = await this.#exchange(method, path, signal);
    if (this.#expected === undefined || answer.socket === this.#known) return answer;
    // It came over another connection: a draining Envoy says `Connection: close` on every answer of its admin (measured, 1.36.4). An
    // address only passes on to newer epochs, so what the same epoch answers before and after was its own in between.
    this.#known = undefined;
    await this.#identify(signal);
    return answer;
  }

  async #identify(signal: AbortSignal): Promise<void> {
    const expected = this.#expected;
    if (expected === undefined || (this.#known !== undefined && !this.#known.destroyed)) return;
    this.#known = undefined;
    const { body, socket } = await this.#exchange('GET', '/server_info', signal);
    const options = (
      JSON.parse(body) as { command_line_options?: { base_id?: number | string; restart_epoch?: number } }
    ).command_line_options;
    const { base_id: baseId = 0, restart_epoch: restartEpoch = 0 } = options ?? {};
    // A 64 bit number of protobuf is a string in its JSON: "base_id": "7000".
    if (Number(baseId) !== expected.baseId || Number(restartEpoch) !== expected.restartEpoch) {
      socket.destroy();
      throw new Error(
        `admin is that of base id ${baseId}, epoch ${restartEpoch}; expected ${expected.baseId}, ${expected.restartEpoch}`,
      );
    }
    this.#known = socket;
  }

  #exchange(method: string, path: string, signal: AbortSignal): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const call = request({ ...this.#target, agent: this.#agent, method, path, signal }, (response) => {
        const { socket } = response;
        collect(response).then((body) => resolve({ status: response.statusCode ?? 0, body, socket }), reject);
      });
      call.on('error', (error) => reject(signal.aborted ? new Error('admin is silent') : error));
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
