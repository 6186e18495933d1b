import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { Server, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { farewell } from './goaway.ts';

/** One connection of the server, for reports. Times are epoch milliseconds. */
export interface ServerConnection {
  /** `ip:port` of the client; empty over a Unix socket. */
  readonly peer: string;
  readonly local: string;
  /** `unknown`: no request has come over it yet. */
  readonly protocol: 'unknown' | 'http1' | 'http2';
  /** Requests or streams that are not ended. */
  readonly inFlight: number;
  readonly openedAt: number;
}

interface Entry {
  readonly socket: Socket;
  readonly openedAt: number;
  protocol: ServerConnection['protocol'];
  inFlight: number;
  /** To leave. */
  told: boolean;
  session?: ServerHttp2Session;
  /** HTTP/1 responses in flight, in the order of their requests, and since when. */
  readonly responses: Map<ServerResponse, number>;
  /** That which says close. */
  last?: ServerResponse;
}

const TELL_EVERY_MS = 25;
const REHEARSE_EVERY = 4;
/** Whoever asks for something that takes this long may ask for nothing more: that response is the chance to say close. */
const SLOW_MS = 250;

/**
 * Counts the connections of an HTTP/1, HTTP/2 or mixed server from its birth, plain or TLS, and tells them to leave without
 * losing a request. The count is of TCP connections: one that is in its TLS handshake counts.
 *
 * HTTP/1: `Connection: close` on the next response. A silent idle connection is left alone, because closing it races a
 * request on its way (RFC 9112 9.5). HTTP/2: see goaway.ts.
 */
export class ServerDrain {
  readonly #entries = new Map<Socket, Entry>();
  /** A TLS socket is another object than the TCP socket below it; they have the client's address in common. */
  readonly #byPeer = new Map<string, Entry>();
  #onEmpty: (() => void) | undefined;
  #rehearsing = false;
  #rehearsed = 0;

  /** To be called before the server accepts. */
  constructor(server: Server) {
    server.prependListener('connection', (socket: Socket) => this.#opened(socket));
    server.prependListener('session', (session: ServerHttp2Session) => this.#session(session));
    // A `request` listener switches the compatibility API of an HTTP/2 server on: only where it is on already. Whoever
    // listens for requests does so before the server accepts.
    if (server.listenerCount('request') > 0 || !('updateSettings' in server)) {
      server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
        if (request.httpVersionMajor === 1) this.#request(request, response);
      });
    }
  }

  /**
   * While a server is warmed up: one in four HTTP/1 connections is told to leave from the first, so that this is compiled
   * too. Not HTTP/2, where leaving ends the connection that everything goes by.
   */
  rehearse(on: boolean): void {
    this.#rehearsing = on;
  }

  get size(): number {
    return this.#entries.size;
  }

  connections(): ServerConnection[] {
    return [...this.#entries.values()].map(({ socket, openedAt, protocol, inFlight }) => ({
      peer: addressOf(socket.remoteAddress, socket.remotePort),
      local: addressOf(socket.localAddress, socket.localPort),
      protocol,
      inFlight,
      openedAt,
    }));
  }

  /**
   * Tells each connection to leave, the oldest first, evenly over so many ms: they come back to a process that has just
   * begun. Nothing must be accepted any more. Resolves when none is left.
   */
  begin(overMs = 0): Promise<void> {
    const waiting = [...this.#entries.values()]; // in the order in which they were accepted
    const begun = performance.now();
    const all = waiting.length;
    const tellDue = (): void => {
      const due = overMs === 0 ? all : Math.ceil((all * (performance.now() - begun)) / overMs);
      for (const entry of waiting.splice(0, due - (all - waiting.length))) this.#tell(entry);
      for (const entry of waiting) if (isSlow(entry)) this.#tell(entry);
      if (waiting.length === 0) clearInterval(timer);
    };
    const timer = setInterval(tellDue, TELL_EVERY_MS);
    tellDue();
    return new Promise((resolve) => {
      this.#onEmpty = () => {
        clearInterval(timer);
        resolve();
      };
      this.#ended();
    });
  }

  #tell(entry: Entry): void {
    entry.told = true;
    if (entry.session) farewell(entry.session, plainSocket(entry));
    sayClose(entry, [...entry.responses.keys()].at(-1));
  }

  #opened(socket: Socket): void {
    if (this.#entries.has(socket)) return;
    const entry: Entry = {
      socket,
      openedAt: Date.now(),
      protocol: 'unknown',
      inFlight: 0,
      told: this.#rehearsing && this.#rehearsed++ % REHEARSE_EVERY === 0,
      responses: new Map(),
    };
    this.#entries.set(socket, entry);
    const peer = peerOf(socket);
    if (peer !== undefined) this.#byPeer.set(peer, entry);
    socket.once('close', () => {
      this.#entries.delete(socket);
      if (peer !== undefined && this.#byPeer.get(peer) === entry) this.#byPeer.delete(peer);
      this.#ended();
    });
  }

  #ended(): void {
    if (this.#entries.size === 0) this.#onEmpty?.();
  }

  #entryOf(socket: Socket): Entry | undefined {
    return this.#entries.get(socket) ?? this.#byPeer.get(peerOf(socket) ?? '');
  }

  #request(request: IncomingMessage, response: ServerResponse): void {
    const entry = this.#entryOf(request.socket);
    if (!entry) return;
    entry.protocol = 'http1';
    entry.inFlight++;
    entry.responses.set(response, performance.now());
    response.once('close', () => {
      entry.inFlight--;
      entry.responses.delete(response);
    });
    if (entry.told) sayClose(entry, response);
  }

  #session(session: ServerHttp2Session): void {
    const entry = this.#entryOf(session.socket as Socket);
    if (!entry) return;
    entry.protocol = 'http2';
    entry.session = session;
    session.on('stream', (stream: ServerHttp2Stream) => {
      entry.inFlight++;
      stream.once('close', () => {
        entry.inFlight--;
      });
    });
    // Accepted before, but its TLS handshake ended only now.
    if (entry.told && !this.#rehearsing) farewell(session, plainSocket(entry));
  }
}

function isSlow({ told, responses }: Entry): boolean {
  return !told && [...responses.values()].some((since) => performance.now() - since > SLOW_MS);
}

/** The TCP socket below a session, where no TLS is between. */
function plainSocket({ session, socket }: Entry): Socket | undefined {
  return (session?.socket as TLSSocket | undefined)?.encrypted === true ? undefined : socket;
}

/**
 * Only the newest request's: Node ends the connection after the response that says close, and those pipelined behind it
 * would get no answer.
 */
function sayClose(entry: Entry, response: ServerResponse | undefined): void {
  // Too late for this one: the next response on the connection says it.
  if (response === undefined || response.headersSent) return;
  const { last } = entry;
  if (last !== undefined && last !== response && !last.headersSent) {
    last.shouldKeepAlive = true;
    last.removeHeader('connection');
  }
  entry.last = response;
  response.shouldKeepAlive = false;
  response.setHeader('connection', 'close');
}

function peerOf({ remoteAddress, remotePort }: Socket): string | undefined {
  return remotePort === undefined ? undefined : addressOf(remoteAddress, remotePort);
}

function addressOf(host: string | undefined, port: number | undefined): string {
  if (host === undefined || port === undefined) return '';
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
