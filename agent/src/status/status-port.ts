import { createServer, type RequestListener, type Server } from 'node:http';
import { type AddressInfo, Server as NetServer } from 'node:net';
import { SluiceError } from '@sluice/contract';
import { dup } from '../native/fds.ts';
import { closeServer, SERVER_TIMEOUTS } from './http.ts';
import { METRICS_CONTENT_TYPE } from './prometheus.ts';

const MAX_CONNECTIONS = 128;

export interface Health {
  readonly ok: boolean;
  /** One line for a person. */
  readonly text: string;
}

export interface StatusHandlers {
  /** Whether the agent itself works; a restart of it would help if not. */
  live(): Health;
  /** Whether an epoch serves. */
  ready(): Health;
  /** Prometheus text. */
  metrics(): string;
  /** The same, of the proxy that serves; undefined: none serves. Absent where the proxy is no Envoy. */
  proxyMetrics?(): Promise<string> | undefined;
}

export interface StatusPort {
  readonly port: number;
  /** A second descriptor of the open listen socket, the caller's to close. */
  socket(): number;
  /**
   * Accepts no more; the connections that are open are answered, each told to close. The socket itself lives on while
   * anybody holds a descriptor of it.
   */
  stopAccepting(): void;
  close(): Promise<void>;
}

/**
 * Serves /livez, /readyz, /metrics, and /healthz/ready and /stats/prometheus, which are what pilot-agent's status port and Istio's
 * Envoy answer to. `where`: an
 * address, of which port 0 takes a free one; or an open listen socket, taken over. Throws CONFIG_INVALID when the address
 * can not be had, with the system's error as its cause.
 */
export async function createStatusPort(
  where: string | { readonly fd: number },
  handlers: StatusHandlers,
): Promise<StatusPort> {
  let leaving = false;
  const server = createServer(
    { ...SERVER_TIMEOUTS, keepAliveTimeout: 65_000 },
    answer(handlers, () => leaving),
  );
  server.maxConnections = MAX_CONNECTIONS;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      const what = typeof where === 'string' ? where : 'the socket of the peer';
      reject(new SluiceError('CONFIG_INVALID', `expected to listen on ${what}, found: ${cause.message}`, { cause }));
    });
    if (typeof where === 'string') server.listen(...parse(where), resolve);
    else server.listen(where, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    socket: () => dup(rawFd(server)),
    stopAccepting() {
      leaving = true;
      // http.Server's own close would end idle connections, on which a request may be under way already.
      if (server.listening) NetServer.prototype.close.call(server);
    },
    close: () => closeServer(server),
  };
}

function parse(address: string): [port: number, host: string | undefined] {
  const at = /^(?:\[([^\]]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(address);
  if (at === null || Number(at[3]) > 65_535) {
    throw new SluiceError('CONFIG_INVALID', `expected a status address host:port, found ${JSON.stringify(address)}`);
  }
  return [Number(at[3]), at[1] ?? (at[2] || undefined)];
}

function rawFd(server: Server): number {
  const fd = (server as unknown as { _handle?: { fd?: unknown } })._handle?.fd;
  if (typeof fd !== 'number' || fd < 0) throw new SluiceError('INTERNAL', 'expected a listening socket');
  return fd;
}

function answer(handlers: StatusHandlers, leaving: () => boolean): RequestListener {
  /** Who asks while an answer is on its way gets the same one: it may be megabytes, and comes by the one connection to the admin. */
  let asked: Promise<string> | undefined;
  const proxyMetrics = (): Promise<string> => {
    asked ??= (handlers.proxyMetrics?.() ?? Promise.reject(new Error('no Envoy serves'))).finally(() => {
      asked = undefined;
    });
    return asked;
  };
  return (request, response) => {
    if (leaving()) response.setHeader('connection', 'close');
    const send = (status: number, type: string, text: string): void => {
      response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(text) });
      response.end(request.method === 'HEAD' ? undefined : text);
    };
    const health = ({ ok, text }: Health): void => send(ok ? 200 : 503, 'text/plain; charset=utf-8', `${text}\n`);
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('connection', 'close');
      return send(405, 'text/plain', 'GET only\n');
    }
    try {
      switch ((request.url ?? '').split('?', 1)[0]) {
        case '/livez':
          return health(handlers.live());
        case '/readyz':
        case '/healthz/ready':
          return health(handlers.ready());
        case '/metrics':
          return send(200, METRICS_CONTENT_TYPE, handlers.metrics());
        case '/stats/prometheus':
          proxyMetrics().then(
            (text) => send(200, METRICS_CONTENT_TYPE, text),
            (error: Error) => send(503, 'text/plain; charset=utf-8', `${error.message}\n`),
          );
          return;
        default:
          return send(
            404,
            'text/plain',
            'no such path; there are /livez, /readyz, /healthz/ready, /metrics and /stats/prometheus\n',
          );
      }
    } catch (thrown) {
      if (!response.headersSent) send(500, 'text/plain', `${thrown instanceof Error ? thrown.message : thrown}\n`);
    }
  };
}
