import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import type { Outcome } from '@sluice/contract';
import { Http1Connection } from '../harness/load/http1-connection.ts';
import { Tally } from '../harness/load/tally.ts';
import type { Identity, Transport, Where } from './bootstrap.ts';

/** The moments of one run, the same for all cells. */
export interface Moments {
  /** The old epoch was told to drain, and a connection on it has felt it. */
  readonly told: Promise<void>;
  /** Every client that is told to leave has left: the sessions that live on are ended by their clients now. */
  readonly sessionsEnd: Promise<void>;
}

/** Bound of every wait of a client; a run is far shorter. */
export const WAIT_MS = 30_000;

/** What the client of one cell works with. */
export class Context {
  readonly tally: Tally;
  readonly transport: Transport;
  readonly moments: Moments;
  /** Resolves once the connection is in the state that the cell is about. */
  readonly ready: Promise<void>;
  /** Its connection has reached the state. */
  readonly opened: () => void;
  /** Lets the upstream go on with what a request of that id asked it to hold. */
  readonly release: (id: string) => void;
  readonly #where: Where;
  readonly #identity: Identity;
  readonly #sockets: net.Socket[] = [];

  constructor(options: {
    name: string;
    transport: Transport;
    moments: Moments;
    where: Where;
    identity: Identity;
    release: (id: string) => void;
  }) {
    this.tally = new Tally(options.name);
    this.transport = options.transport;
    this.moments = options.moments;
    this.release = options.release;
    this.#where = options.where;
    this.#identity = options.identity;
    const opening = Promise.withResolvers<void>();
    this.ready = opening.promise;
    this.opened = opening.resolve;
  }

  /** A connection over the cell's transport, its handshake done. `session`: a TLS session to resume. */
  async connect(alpn: 'h2' | 'http/1.1' = 'http/1.1', session?: Buffer): Promise<net.Socket> {
    const plain = await this.connectPlain();
    if (this.transport === 'proxy-protocol') plain.write(proxyHeader(plain));
    if (!this.transport.includes('tls')) return plain;
    const { client } = this.#identity;
    const own = this.transport === 'mtls' ? { cert: client.certificate, key: client.key } : {};
    const resume = session === undefined ? {} : { session };
    const secure = tls.connect({ socket: plain, rejectUnauthorized: false, ALPNProtocols: [alpn], ...own, ...resume });
    this.#sockets.push(secure);
    await within('a TLS handshake', once(secure, 'secureConnect'));
    return secure;
  }

  /** The bare TCP or Unix connection, nothing sent. */
  async connectPlain(): Promise<net.Socket> {
    const at = this.#where[this.transport];
    const host = this.transport === 'ipv6' ? '::1' : '127.0.0.1';
    const socket = typeof at === 'string' ? net.connect({ path: at }) : net.connect({ port: at, host, noDelay: true });
    this.#sockets.push(socket);
    await within('a connect', once(socket, 'connect'));
    // Whoever uses the socket hears its errors; this keeps a late one from ending the run.
    socket.on('error', () => {});
    return socket;
  }

  async http1(): Promise<Http1Connection> {
    return new Http1Connection(await this.connect('http/1.1'));
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** PROXY protocol v1, as a load balancer in front would write it. */
export function proxyHeader(socket: net.Socket): string {
  return `PROXY TCP4 192.0.2.7 192.0.2.1 ${socket.localPort} 80\r\n`;
}

/** @throws Error when it did not come within WAIT_MS */
export async function within<T>(what: string, awaited: Promise<T>, ms = WAIT_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([awaited, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The client of a cell: brings a connection into its state, acts through the drain, says how the connection ended. */
export type Client = (context: Context) => Promise<Outcome>;
