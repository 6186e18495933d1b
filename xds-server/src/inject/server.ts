import type { IncomingMessage, ServerResponse } from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { SluiceError, toSluiceError } from '@sluice/contract';
import type { Log } from '../log.ts';
import { type Reviewed, review } from './admission.ts';
import type { Injection } from './config.ts';
import type { Identity } from './x509.ts';

export const INJECT_PATH = '/inject';
/** The API server takes objects of 3 MB at most; a review has one, and what it says of the user. */
const MAX_BODY_BYTES = 8 * 1024 * 1024;
const REQUEST_MS = 5_000;
/** What is asked already is answered in a few milliseconds. */
const ANSWER_MS = 1_000;
/**
 * Longer than the API server keeps an idle connection (client-go's transport: 90 s): the one that closes is never us, so that none of
 * its requests meets a closing connection.
 */
const IDLE_MS = 180_000;
const MAX_CONNECTIONS = 1_000;
/** How long API servers may still call one that ends: they hear late that it is no endpoint of the Service any more. */
const LINGER_MS = 3_000;

export interface WebhookOptions {
  readonly host: string;
  readonly port: number;
  readonly config: Injection;
  readonly log: Log;
  readonly onReview?: ((reviewed: Reviewed) => void) | undefined;
  readonly lingerMs?: number | undefined;
}

/** The HTTPS server of the webhook. It listens from the first certificate on. */
export class WebhookServer {
  readonly #options: WebhookOptions;
  #server: https.Server | undefined;
  #closed = false;

  constructor(options: WebhookOptions) {
    this.#options = options;
  }

  /** 0 until it listens. */
  get port(): number {
    return (this.#server?.address() as AddressInfo | null | undefined)?.port ?? 0;
  }

  /** New connections get this certificate; those that there are go on. Rejects with CONFIG_INVALID when the address is not free. */
  async serve({ certificate, key }: Identity): Promise<void> {
    if (this.#closed) return;
    const context = { cert: certificate, key };
    if (this.#server !== undefined) {
      this.#server.setSecureContext(context);
      return;
    }
    const { host, port, log } = this.#options;
    const server = https.createServer(
      { ...context, requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS, keepAliveTimeout: IDLE_MS },
      (request, response) => void this.#answer(request, response),
    );
    server.maxConnections = MAX_CONNECTIONS;
    server.on('tlsClientError', (error) => log.debug({ error: error.message }, 'webhook: a connection failed'));
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) => {
        if (!server.listening) this.#server = undefined;
        const message = `injection: expected a free address, found ${host}:${port}: ${cause.message}`;
        reject(new SluiceError('CONFIG_INVALID', message, { cause }));
      });
      server.listen(port, host, resolve);
    });
    log.info({ port: this.port }, 'webhook serves');
  }

  /**
   * Answers for a while longer, each time with the wish to end the connection: HTTP/1 (the API server speaks no other with webhooks)
   * has no GOAWAY, so a connection that we closed could meet a request. Then it is closed.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const server = this.#server;
    if (server === undefined) return;
    await delay(this.#options.lingerMs ?? LINGER_MS);
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeIdleConnections();
      setTimeout(() => server.closeAllConnections(), ANSWER_MS).unref();
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { config, log, onReview } = this.#options;
    const send = (status: number, body: object) => {
      if (response.destroyed) return;
      // Then no further request comes on this connection.
      if (this.#closed || status === 413) response.setHeader('connection', 'close');
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    };
    try {
      const { pathname } = new URL(request.url ?? '/', 'https://webhook');
      if (pathname !== INJECT_PATH) return send(404, { message: `expected POST ${INJECT_PATH}` });
      if (request.method !== 'POST') return send(405, { message: `expected POST ${INJECT_PATH}` });
      if (!request.headers['content-type']?.startsWith('application/json')) {
        return send(415, { message: 'expected application/json' });
      }
      const reviewed = review(await readJson(request), config);
      send(200, reviewed.review);
      log.info({ result: reviewed.result, ...(reviewed.why !== undefined && { why: reviewed.why }) }, 'injection');
      onReview?.(reviewed);
    } catch (thrown) {
      const error = toSluiceError(thrown);
      const status = error.code === 'TOO_LARGE' ? 413 : error.code === 'INPUT_INVALID' ? 400 : 500;
      log.warn({ err: error }, 'webhook: a request was not understood');
      send(status, error.toJSON());
    }
  }
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += (chunk as Buffer).length;
    if (bytes > MAX_BODY_BYTES) throw new SluiceError('TOO_LARGE', `expected at most ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk as Buffer);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString());
  } catch (cause) {
    throw new SluiceError('INPUT_INVALID', `expected JSON: ${(cause as Error).message}`, { cause });
  }
}
