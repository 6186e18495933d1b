import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import {
  type AgentMessage,
  type ControllerMessage,
  type ErrorCode,
  encodeLine,
  type Hello,
  LINK_PATH,
  LINK_PROTOCOL,
  MAX_LINE_BYTES,
  NdjsonDecoder,
  negotiateVersion,
  OLDEST_SUPPORTED,
  PING_INTERVAL_MS,
  PROTOCOL_VERSION,
  SluiceError,
  toSluiceError,
} from '@sluice/contract';
import { type Log, SILENT } from '../log.ts';
import { isHello, readAgentMessage } from './messages.ts';
import type { TokenCheck } from './tokens.ts';

/** What an agent that does not read may make us keep. */
const MAX_UNSENT_BYTES = 2 * MAX_LINE_BYTES;
const HELLO_MS = 5_000;

/** One agent's link, from its welcome to its end. */
export interface AgentLink {
  readonly proxy: string;
  readonly slot: string;
  readonly hello: Hello;
  readonly since: number;
  /** False when the link has ended: the message will not arrive. */
  send(message: ControllerMessage): boolean;
  close(): void;
  /** Sends the agent to the controller that its proxy belongs to, and ends the link. */
  move(url: string): void;
}

export interface LinkHandlers {
  readonly connected: (link: AgentLink) => void;
  readonly message: (link: AgentLink, message: AgentMessage) => void;
  readonly gone: (link: AgentLink, why: string) => void;
}

export interface LinkServerOptions {
  readonly handlers: LinkHandlers;
  readonly checkToken: TokenCheck;
  /** URL of the controller that a proxy belongs to; undefined: this one. */
  readonly elsewhere?: (proxy: string) => string | undefined;
  readonly log?: Log;
  readonly now?: () => number;
  readonly pingMs?: number;
  readonly helloMs?: number;
  /** Links at once, those before their hello included. */
  readonly maxLinks?: number;
}

/** Accepts agents on the server's `upgrade` event. One live link a slot. */
export class LinkServer {
  readonly #options: LinkServerOptions;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #pingMs: number;
  readonly #links = new Map<string, Session>();
  readonly #sessions = new Set<Session>();
  #closed = false;

  constructor(server: Server, options: LinkServerOptions) {
    this.#options = options;
    this.#log = options.log ?? SILENT;
    this.#now = options.now ?? Date.now;
    this.#pingMs = options.pingMs ?? PING_INTERVAL_MS;
    server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
  }

  /** Sends the agents on whose proxies belong to another controller now. */
  moveAll(): void {
    for (const { link } of [...this.#sessions]) {
      const url = link && this.#options.elsewhere?.(link.proxy);
      if (url !== undefined) link?.move(url);
    }
  }

  /** Ends every link; the agents come back when a controller listens again, or go to the one that takes over. */
  close(): void {
    this.#closed = true;
    this.moveAll();
    for (const session of [...this.#sessions]) session.end('the controller closes');
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    // Without a listener a reset of the peer would be thrown.
    socket.on('error', () => socket.destroy());
    const path = (request.url ?? '').split('?')[0];
    const wanted = request.headers.upgrade?.toLowerCase();
    if (path !== LINK_PATH || wanted !== LINK_PROTOCOL) {
      socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    if (this.#closed || this.#sessions.size >= (this.#options.maxLinks ?? 10_000)) {
      socket.end('HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${LINK_PROTOCOL}\r\n\r\n`);
    const session = new Session(socket, {
      now: this.#now,
      pingMs: this.#pingMs,
      helloMs: this.#options.helloMs ?? HELLO_MS,
      log: this.#log,
      message: (message) => this.#message(session, message),
      ended: (why) => this.#ended(session, why),
    });
    this.#sessions.add(session);
    session.start(head);
  }

  #message(session: Session, message: AgentMessage): void {
    if (session.link !== undefined) {
      if (message.type !== 'hello' && message.type !== 'ping') this.#options.handlers.message(session.link, message);
      return;
    }
    if (!isHello(message)) {
      session.refuse('INPUT_INVALID', `expected hello as the first message, found ${message.type}`);
      return;
    }
    const version = negotiateVersion(message.v);
    if (version === undefined) {
      const range = `${OLDEST_SUPPORTED} to ${PROTOCOL_VERSION}`;
      session.refuse('PROTOCOL_UNSUPPORTED', `expected protocol version ${range}, found ${message.v}`);
      return;
    }
    if (!this.#options.checkToken(message.proxy, message.identity.token)) {
      session.refuse('IDENTITY_REFUSED', `the token does not prove an agent of ${message.proxy}`);
      return;
    }
    const url = this.#options.elsewhere?.(message.proxy);
    if (url !== undefined) {
      session.move(url);
      return;
    }
    const key = JSON.stringify([message.proxy, message.slot]);
    const first = this.#links.get(key);
    if (first !== undefined) {
      // A live agent says something each ping interval. One that lost its network without a FIN has not.
      if (this.#now() - first.heardAt <= this.#pingMs * 1.5) {
        const since = new Date(first.link?.since ?? 0).toISOString();
        session.refuse('SLOT_TAKEN', `slot ${message.slot} of ${message.proxy} has an agent since ${since}`);
        return;
      }
      first.end('another agent took the slot of this silent one');
    }
    session.welcome(message, version);
    this.#links.set(key, session);
    this.#log.info({ proxy: message.proxy, slot: message.slot, agent: message.agentVersion }, 'agent connected');
    this.#options.handlers.connected(session.link as unknown as AgentLink);
  }

  #ended(session: Session, why: string): void {
    this.#sessions.delete(session);
    const { link } = session;
    if (link === undefined) {
      this.#log[session.moved ? 'debug' : 'warn']({ why }, 'link ended before its welcome');
      return;
    }
    const key = JSON.stringify([link.proxy, link.slot]);
    if (this.#links.get(key) === session) this.#links.delete(key);
    this.#log.info({ proxy: link.proxy, slot: link.slot, why }, 'agent gone');
    this.#options.handlers.gone(link, why);
  }
}

interface SessionOptions {
  readonly now: () => number;
  readonly pingMs: number;
  readonly helloMs: number;
  readonly log: Log;
  readonly message: (message: AgentMessage) => void;
  readonly ended: (why: string) => void;
}

class Session {
  link: AgentLink | undefined;
  heardAt: number;
  readonly #socket: Duplex;
  readonly #options: SessionOptions;
  readonly #decoder = new NdjsonDecoder();
  #saidAt: number;
  #timer: NodeJS.Timeout | undefined;
  #hello: NodeJS.Timeout | undefined;
  #over = false;
  moved = false;

  constructor(socket: Duplex, options: SessionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.heardAt = options.now();
    this.#saidAt = this.heardAt;
  }

  start(head: Buffer): void {
    const { pingMs, helloMs, now } = this.#options;
    this.#hello = setTimeout(() => this.refuse('TIMEOUT', `expected hello within ${helloMs} ms`), helloMs);
    this.#timer = setInterval(() => {
      if (now() - this.heardAt > 3 * pingMs) this.end(`silent for ${now() - this.heardAt} ms`);
      else if (this.link !== undefined && now() - this.#saidAt >= pingMs) this.#write({ type: 'ping' });
    }, pingMs / 2);
    this.#socket.on('data', (chunk: Buffer) => this.#read(chunk));
    this.#socket.on('close', () => this.end('closed by the agent'));
    this.#socket.on('end', () => this.end('closed by the agent'));
    this.#socket.on('error', (error) => this.end(error.message));
    if (head.length > 0) this.#read(head);
  }

  welcome(hello: Hello, version: number): void {
    clearTimeout(this.#hello);
    this.link = {
      proxy: hello.proxy,
      slot: hello.slot,
      hello,
      since: this.#options.now(),
      send: (message) => this.#write(message),
      close: () => this.end('closed here'),
      move: (url) => this.move(url),
    };
    this.#write({ type: 'welcome', v: version });
  }

  refuse(code: ErrorCode, message: string): void {
    if (this.#over) return;
    this.#socket.write(encodeLine({ type: 'refused', code: `SLUICE_${code}`, message }));
    this.end(`refused: ${message}`);
  }

  move(url: string): void {
    this.moved = true;
    this.#write({ type: 'moved', url });
    this.end(`its proxy belongs to ${url}`);
  }

  end(why: string): void {
    if (this.#over) return;
    this.#over = true;
    clearInterval(this.#timer);
    clearTimeout(this.#hello);
    this.#socket.end();
    // What was written goes out; a peer that does not close is not waited for.
    setTimeout(() => this.#socket.destroy(), 1_000).unref();
    this.#options.ended(why);
  }

  #write(message: ControllerMessage): boolean {
    if (this.#over || this.#socket.destroyed) return false;
    if (this.#socket.writableLength > MAX_UNSENT_BYTES) {
      this.end('the agent does not read what is sent to it');
      return false;
    }
    this.#saidAt = this.#options.now();
    this.#socket.write(encodeLine(message));
    return true;
  }

  #read(chunk: Buffer): void {
    if (this.#over) return;
    this.heardAt = this.#options.now();
    let lines: Record<string, unknown>[];
    try {
      lines = this.#decoder.push(chunk);
    } catch (thrown) {
      // Where a line ends is not known any more.
      const error = toSluiceError(thrown);
      this.refuse(error.code, error.message);
      return;
    }
    for (const line of lines) {
      if (this.#over) return;
      this.#take(line);
    }
  }

  #take(line: Record<string, unknown>): void {
    try {
      const message = readAgentMessage(line);
      if (message !== undefined) this.#options.message(message);
    } catch (thrown) {
      const error = thrown instanceof SluiceError ? thrown : toSluiceError(thrown);
      if (this.link === undefined) this.refuse(error.code, error.message);
      else this.#options.log.warn({ proxy: this.link.proxy, error: error.message }, 'message ignored');
    }
  }
}
