import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { SluiceError } from '@sluice/contract';
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
}

export interface StatusPort {
  readonly port: number;
  close(): Promise<void>;
}

/**
 * Serves /livez, /readyz, /metrics, and /healthz/ready, which is what pilot-agent's status port answers to. Throws
 * CONFIG_INVALID when the address can not be had. Port 0 takes a free one.
 */
export async function createStatusPort(address: string, handlers: StatusHandlers): Promise<StatusPort> {
  const at = /^(?:\[([^\]]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(address);
  if (at === null || Number(at[3]) > 65_535) {
    throw new SluiceError('CONFIG_INVALID', `expected a status address host:port, found ${JSON.stringify(address)}`);
  }
  const server = createServer({ ...SERVER_TIMEOUTS, keepAliveTimeout: 65_000 }, answer(handlers));
  server.maxConnections = MAX_CONNECTIONS;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      reject(new SluiceError('CONFIG_INVALID', `expected to listen on ${address}, found: ${cause.message}`, { cause }));
    });
    server.listen(Number(at[3]), at[1] ?? (at[2] || undefined), resolve);
  });
  return { port: (server.address() as AddressInfo).port, close: () => closeServer(server) };
}

function answer(handlers: StatusHandlers): RequestListener {
  return (request, response) => {
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
        default:
          return send(404, 'text/plain', 'no such path; there are /livez, /readyz, /healthz/ready and /metrics\n');
      }
    } catch (thrown) {
      if (!response.headersSent) send(500, 'text/plain', `${thrown instanceof Error ? thrown.message : thrown}\n`);
    }
  };
}
