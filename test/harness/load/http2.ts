import http2 from 'node:http2';
import net from 'node:net';
import tls from 'node:tls';
import { askPath, ID_HEADER } from '../upstream/answers.ts';
import { LoadClient, type Targets } from './client.ts';
import { check, type IdleRecord } from './http1.ts';
import { neverSent } from './http2-streams.ts';

const ANSWER_LIMIT_MS = 30_000;
const CONNECT_LIMIT_MS = 10_000;
const { NGHTTP2_NO_ERROR } = http2.constants;

export interface Http2Options {
  readonly name: string;
  readonly sessions: number;
  readonly rate: number;
  readonly tls?: boolean;
  readonly maxDelayMs?: number;
  readonly maxInFlight?: number;
}

/** A session and what the server's GOAWAY said, if one came. */
class Session {
  readonly session: http2.ClientHttp2Session;
  goaway: { at: number; code: number; lastStreamId: number } | undefined;
  inFlight = 0;

  constructor(session: http2.ClientHttp2Session) {
    this.session = session;
    // Streams carry the errors; a session error without a stream lost nothing.
    session.on('error', () => {});
    session.on('goaway', (code, lastStreamId) => {
      this.goaway ??= { at: Date.now(), code, lastStreamId };
    });
  }

  get usable(): boolean {
    return this.goaway === undefined && !this.session.closed && !this.session.destroyed;
  }
}

export class Http2Client extends LoadClient {
  private readonly options: Http2Options;
  private readonly targets: Targets;
  private ticket: Buffer | undefined;
  private inFlight = new Set<Promise<void>>();

  constructor(targets: Targets, options: Http2Options) {
    super(options.name);
    this.options = options;
    this.targets = targets;
  }

  protected override run(): Promise<unknown>[] {
    return Array.from({ length: this.options.sessions }, () => this.worker());
  }

  /** Requests are begun at the pace, whether or not earlier ones have ended: that is what multiplexes them. */
  private async worker(): Promise<void> {
    let current: Session | undefined;
    const limit = this.options.maxInFlight ?? 50;
    await this.paced(this.options.rate / this.options.sessions, async () => {
      if (current === undefined || !current.usable) {
        current?.session.close();
        current = await this.connect();
      }
      if (current === undefined || current.inFlight >= limit) return;
      const request = this.once(current);
      this.inFlight.add(request);
      void request.finally(() => this.inFlight.delete(request));
    });
    await Promise.all(this.inFlight);
    current?.session.close();
  }

  private async once(on: Session): Promise<void> {
    const id = this.tally.nextId();
    const size = Math.floor(Math.random() * 2000);
    const delay = Math.random() < 0.1 ? Math.floor(Math.random() * (this.options.maxDelayMs ?? 0)) : 0;
    on.inFlight++;
    const outcome = await ask(on, this.targets.host, id, size, delay);
    on.inFlight--;
    if (outcome === 'ok') this.tally.ok(id);
    else if (outcome === 'refused') this.tally.refuse(id);
    else this.tally.fail(id, outcome);
  }

  private async connect(): Promise<Session | undefined> {
    const port = this.options.tls === true ? this.targets.tls : this.targets.http;
    const { session, ready } = open(this.targets.host, port, this.options.tls === true, this.ticket, (ticket) => {
      this.ticket = ticket;
    });
    const error = await ready;
    if (error === undefined) return new Session(session);
    session.destroy();
    // A failed TCP connect is counted by the connection log.
    if (this.options.tls === true && !error.includes('ECONN'))
      this.tally.fail(this.tally.nextId(), `connect: ${error}`);
    return undefined;
  }
}

/** One request on a session; 'refused' = this library did not send it, because GOAWAY had come. */
function ask(on: Session, host: string, id: string, size: number, delay: number): Promise<string> {
  return new Promise((resolve) => {
    let stream: http2.ClientHttp2Stream;
    try {
      stream = on.session.request({ ':path': askPath({ size, delay }), ':authority': host, [ID_HEADER]: id });
    } catch (error) {
      // node:http2 throws before it has written anything.
      resolve(on.goaway === undefined ? (error as Error).message : 'refused');
      return;
    }
    let status: number | undefined;
    let answeredId: string | undefined;
    let why: string | undefined;
    const parts: Buffer[] = [];
    stream.setTimeout(ANSWER_LIMIT_MS, () => {
      why = `no answer within ${ANSWER_LIMIT_MS} ms`;
      stream.close();
    });
    stream.on('response', (headers) => {
      status = headers[':status'];
      answeredId = String(headers[ID_HEADER] ?? '');
    });
    stream.on('data', (chunk: Buffer) => parts.push(chunk));
    let whole = false;
    stream.on('end', () => {
      whole = true;
    });
    stream.on('error', (error: Error) => {
      why ??= error.message;
    });
    stream.on('close', () => {
      if (neverSent(stream, on.goaway?.lastStreamId)) resolve('refused');
      else if (stream.rstCode !== NGHTTP2_NO_ERROR) resolve(why ?? `stream reset, code ${stream.rstCode}`);
      else if (!whole || why !== undefined) resolve(why ?? 'the answer was cut');
      else resolve(check(id, size, status, answeredId, Buffer.concat(parts)) ?? 'ok');
    });
    stream.end();
  });
}

function open(
  host: string,
  port: number,
  secure: boolean,
  ticket: Buffer | undefined,
  onTicket: (ticket: Buffer) => void,
): { session: http2.ClientHttp2Session; ready: Promise<string | undefined> } {
  const createConnection = () => {
    const socket = net.connect({ host, port, noDelay: true });
    if (!secure) return socket;
    const resume = ticket === undefined ? {} : { session: ticket };
    const encrypted = tls.connect({ socket, rejectUnauthorized: false, ALPNProtocols: ['h2'], ...resume });
    encrypted.on('session', onTicket);
    return encrypted;
  };
  const session = http2.connect(`${secure ? 'https' : 'http'}://${host}:${port}`, { createConnection });
  const ready = new Promise<string | undefined>((resolve) => {
    const timer = setTimeout(() => resolve(`not within ${CONNECT_LIMIT_MS} ms`), CONNECT_LIMIT_MS);
    const settle = (error?: string) => {
      clearTimeout(timer);
      resolve(error);
    };
    // The server's SETTINGS: it has accepted and speaks HTTP/2.
    session.once('remoteSettings', () => settle());
    session.once('error', (error: NodeJS.ErrnoException) => settle(error.code ?? error.message));
    session.once('close', () => settle('closed'));
  });
  return { session, ready };
}

/** HTTP/2 connections that ask once, then are idle; each notes when GOAWAY came, and is opened again. */
export class IdleHttp2Client extends LoadClient {
  readonly records: IdleRecord[] = [];
  private readonly targets: Targets;
  private readonly connections: number;

  constructor(targets: Targets, connections: number) {
    super('http2-idle');
    this.targets = targets;
    this.connections = connections;
  }

  protected override run(): Promise<unknown>[] {
    return Array.from({ length: this.connections }, () => this.worker());
  }

  private async worker(): Promise<void> {
    while (!this.stopping) {
      const { session, ready } = open(this.targets.host, this.targets.http, false, undefined, () => {});
      if ((await ready) !== undefined) {
        session.destroy();
        await this.pause(200);
        continue;
      }
      const on = new Session(session);
      const id = this.tally.nextId();
      const outcome = await ask(on, this.targets.host, id, 10, 0);
      if (outcome === 'ok') this.tally.ok(id);
      else if (outcome === 'refused') this.tally.refuse(id);
      else this.tally.fail(id, outcome);
      const record: IdleRecord = { localPort: session.socket?.localPort ?? 0, openedAt: Date.now() };
      this.records.push(record);
      await Promise.race([gone(session), this.pause(2 ** 31 - 1)]);
      if (!this.stopping) {
        if (on.goaway !== undefined) record.goawayAt = on.goaway.at;
        record.endedAt = Date.now();
      }
      session.close();
      await this.pause(200);
    }
  }
}

function gone(session: http2.ClientHttp2Session): Promise<void> {
  return new Promise((resolve) => {
    if (session.destroyed || session.closed) resolve();
    session.once('goaway', () => resolve());
    session.once('close', resolve);
  });
}
