import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type Connection, MAX_REPORT_BYTES, REPORT_PATH, SluiceError } from '@sluice/contract';
import type { Log } from '../log.ts';
import { BodyBudget } from './body.ts';
import { closeServer, SERVER_TIMEOUTS, sendError, sendJson } from './http.ts';
import { listenOnSocket, removeSocket } from './unix-listen.ts';

/** Workers + 2 connections for each living Envoy, and a few people. */
const MAX_CONNECTIONS = 1_024;
const MAX_BODY_BYTES = 64 * 1024;
const MAX_HELD_BYTES = 16 * 1024 * 1024;
const DEFAULT_WAIT_MS = 60_000;
const MAX_WAIT_MS = 3_600_000;

/** What the local API asks of the keeper. A thrown SluiceError becomes the answer; JSON bodies come as they were sent. */
export interface ControlHandlers {
  /** A filter's report, to its reply. REPORT_INVALID makes the filter send a snapshot next. */
  report(body: Buffer): Uint8Array | Promise<Uint8Array>;
  status(): unknown;
  connections(
    epoch: number | undefined,
  ): Promise<{ readonly items: readonly Connection[]; readonly truncated: boolean }>;
  /** Resolves when the newest epoch serves; rejects when it never will, or when `signal` ends. */
  waitServing(signal: AbortSignal): Promise<unknown>;
  /** The Pod ends this container: resolves when nothing of it is to be waited for. Absent where there are no slots. */
  prestop?(): Promise<unknown>;
  upgrade(body: Record<string, unknown>): Promise<unknown>;
  abort(body: Record<string, unknown>): Promise<unknown>;
  reset(body: Record<string, unknown>): Promise<unknown>;
}

export interface ControlServer {
  readonly path: string;
  readonly stats: { reports: number; refused: number; reportBytes: number };
  /** Stops and removes the socket file. */
  close(): Promise<void>;
}

/** Serves the agent's Unix socket: the filters' reports, and the local command line. Throws SLOT_TAKEN. */
export async function createControlServer(options: {
  readonly path: string;
  readonly handlers: ControlHandlers;
  readonly log: Log;
}): Promise<ControlServer> {
  const { path, handlers, log } = options;
  const budget = new BodyBudget(MAX_HELD_BYTES);
  const stats = { reports: 0, refused: 0, reportBytes: 0 };

  const report = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    try {
      const body = await budget.read(request, MAX_REPORT_BYTES);
      stats.reports++;
      stats.reportBytes += body.length;
      const reply = await handlers.report(body);
      response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': reply.length });
      response.end(reply);
    } catch (thrown) {
      stats.refused++;
      throw thrown;
    }
  };

  const json = async (request: IncomingMessage): Promise<Record<string, unknown>> => {
    const body = await budget.read(request, MAX_BODY_BYTES);
    let value: unknown;
    try {
      value = body.length === 0 ? {} : JSON.parse(body.toString('utf8'));
    } catch (cause) {
      throw new SluiceError('INPUT_INVALID', 'expected a body of JSON, found something else', { cause });
    }
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
    throw new SluiceError('INPUT_INVALID', 'expected a JSON object as the body, found another JSON value');
  };

  const wait = async (url: URL, response: ServerResponse): Promise<unknown> => {
    const timeout = number(url, 'timeout', MAX_WAIT_MS) ?? DEFAULT_WAIT_MS;
    const gone = new AbortController();
    response.on('close', () => gone.abort());
    const limit = AbortSignal.timeout(timeout);
    try {
      return await untilAborted(handlers.waitServing, AbortSignal.any([gone.signal, limit]));
    } catch (thrown) {
      if (!limit.aborted) throw thrown;
      throw new SluiceError(
        'TIMEOUT',
        `expected the newest epoch to serve within ${timeout} ms, found that it does not`,
      );
    }
  };

  const route = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '/', 'http://agent');
    switch (`${request.method} ${url.pathname}`) {
      case `POST ${REPORT_PATH}`:
        return report(request, response);
      case 'GET /v1/status':
        return sendJson(response, 200, await handlers.status());
      case 'GET /v1/connections':
        return sendJson(response, 200, await handlers.connections(number(url, 'epoch', Number.MAX_SAFE_INTEGER)));
      case 'GET /v1/wait':
        return sendJson(response, 200, await wait(url, response));
      case 'POST /v1/prestop':
        return sendJson(response, 200, (await handlers.prestop?.()) ?? {});
      case 'POST /v1/upgrade':
        return sendJson(response, 202, await handlers.upgrade(await json(request)));
      case 'POST /v1/abort':
        return sendJson(response, 202, await handlers.abort(await json(request)));
      case 'POST /v1/reset':
        return sendJson(response, 202, await handlers.reset(await json(request)));
      default:
        response.setHeader('connection', 'close');
        return sendJson(response, 404, { code: 'SLUICE_INPUT_INVALID', message: 'no such path', hint: 'see the docs' });
    }
  };

  const server = createServer(SERVER_TIMEOUTS, (request, response) => {
    route(request, response).catch((thrown: unknown) => {
      // A request that the client itself broke off has nobody to answer.
      if (request.destroyed && !request.complete) response.destroy();
      else sendError(response, thrown);
    });
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.on('drop', () => log('warn', 'agent socket: too many connections', { bound: MAX_CONNECTIONS }));
  await listenOnSocket(server, path);
  return {
    path,
    stats,
    async close() {
      await closeServer(server);
      removeSocket(path);
    },
  };
}

/** The promise, or the signal's reason when that comes first: a handler that ignores its signal holds nobody. */
function untilAborted<T>(run: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    run(signal)
      .finally(() => signal.removeEventListener('abort', onAbort))
      .then(resolve, reject);
  });
}

/** A whole number of a query, undefined when absent. */
function number(url: URL, name: string, max: number): number | undefined {
  const text = url.searchParams.get(name);
  if (text === null) return undefined;
  const value = Number(text);
  if (/^\d{1,16}$/.test(text) && value <= max) return value;
  throw new SluiceError(
    'INPUT_INVALID',
    `${name}: expected a whole number up to ${max}, found ${JSON.stringify(text.slice(0, 40))}`,
  );
}
