import { once } from 'node:events';
import http2 from 'node:http2';
import type { Outcome } from '@sluice/contract';
import { neverSent } from '../harness/load/http2-streams.ts';
import { answerBody, askPath, type Hold, ID_HEADER } from '../harness/upstream/answers.ts';
import { type Client, type Context, WAIT_MS, within } from './context.ts';

const SIZE = 600;
const { NGHTTP2_NO_ERROR } = http2.constants;

/** One HTTP/2 connection of a cell: its GOAWAY, and its end. */
export class Http2Held {
  readonly session: http2.ClientHttp2Session;
  goaway: { readonly code: number; readonly lastStreamId: number } | undefined;
  readonly told: Promise<void>;
  readonly closed: Promise<void>;
  readonly context: Context;

  constructor(context: Context, session: http2.ClientHttp2Session) {
    this.context = context;
    this.session = session;
    // Streams carry the errors; a session error without a stream lost nothing.
    session.on('error', () => {});
    this.told = new Promise((resolve) => {
      session.on('goaway', (code, lastStreamId) => {
        this.goaway ??= { code, lastStreamId };
        resolve();
      });
    });
    this.closed = new Promise((resolve) => session.once('close', resolve));
  }

  static async open(context: Context): Promise<Http2Held> {
    const socket = await context.connect('h2');
    const session = http2.connect('http://matrix', { createConnection: () => socket });
    const held = new Http2Held(context, session);
    await within('SETTINGS', once(session, 'remoteSettings'));
    return held;
  }

  stream(id: string, headers: http2.OutgoingHttpHeaders, endStream = true): Http2Stream {
    const all = { ':authority': 'matrix', ':scheme': 'http', [ID_HEADER]: id, ...headers };
    return new Http2Stream(this, id, this.session.request(all, { endStream }));
  }

  get(id: string, hold?: Hold, size = SIZE): Http2Stream {
    return this.stream(id, { ':path': askPath({ size, ...(hold && { hold }) }) });
  }

  /** After its streams have ended. */
  async ending(): Promise<Outcome> {
    await within('the end of the connection', Promise.race([this.closed, this.told]));
    if (this.goaway === undefined) return 'closed';
    return this.goaway.code === NGHTTP2_NO_ERROR ? 'goaway' : 'cut';
  }
}

/** One stream, and the whole of what came on it. */
export class Http2Stream {
  readonly id: string;
  readonly stream: http2.ClientHttp2Stream;
  status: number | undefined;
  answeredId: string | undefined;
  trailers: http2.IncomingHttpHeaders = {};
  body: Buffer = Buffer.alloc(0);
  readonly #held: Http2Held;
  readonly #closed: Promise<string | undefined>;

  constructor(held: Http2Held, id: string, stream: http2.ClientHttp2Stream) {
    this.#held = held;
    this.id = id;
    this.stream = stream;
    let error: string | undefined;
    let whole = false;
    const parts: Buffer[] = [];
    stream.on('response', (headers) => {
      this.status = headers[':status'];
      this.answeredId = String(headers[ID_HEADER] ?? '');
      if ('grpc-status' in headers) this.trailers = headers;
    });
    stream.on('trailers', (headers) => {
      this.trailers = headers;
    });
    stream.on('data', (chunk: Buffer) => parts.push(chunk));
    stream.on('end', () => {
      whole = true;
    });
    stream.on('error', (e: Error) => {
      error = e.message;
    });
    this.#closed = new Promise((resolve) => {
      stream.on('close', () => {
        this.body = Buffer.concat(parts);
        if (stream.rstCode !== NGHTTP2_NO_ERROR) resolve(error ?? `reset with code ${stream.rstCode}`);
        else resolve(whole ? error : (error ?? 'cut short'));
      });
    });
  }

  async head(): Promise<void> {
    await within('the head of an answer', once(this.stream, 'response'));
  }

  /** Waits for its end and counts it; `right`: what the answer must be. False: it was not answered rightly. */
  async settle(right: Buffer | 'any' = answerBody(this.id, SIZE)): Promise<boolean> {
    const { tally } = this.#held.context;
    const error = await within('an answer', this.#closed);
    if (neverSent(this.stream, this.#held.goaway?.lastStreamId)) tally.refuse(this.id);
    else if (error !== undefined) tally.fail(this.id, error);
    else if (this.status !== 200) tally.fail(this.id, `status ${this.status}`);
    else if (right !== 'any' && (this.answeredId !== this.id || !this.body.equals(right)))
      tally.fail(this.id, `a wrong answer of ${this.body.length} bytes`);
    else {
      tally.ok(this.id);
      return true;
    }
    return false;
  }
}

export const idle: Client = async (context) => {
  const on = await Http2Held.open(context);
  await on.get(context.tally.nextId()).settle();
  context.opened();
  return on.ending();
};

/** Its SETTINGS have come, so Envoy has a codec that can say GOAWAY; no stream was ever opened. */
export const noRequest: Client = async (context) => {
  const on = await Http2Held.open(context);
  context.opened();
  return on.ending();
};

/** Eight requests at a time, all through. */
export const busy: Client = async (context) => {
  const on = await Http2Held.open(context);
  await on.get(context.tally.nextId()).settle();
  context.opened();
  const until = Date.now() + WAIT_MS;
  const worker = async () => {
    while (on.goaway === undefined && !on.session.closed && Date.now() < until) {
      await on.get(context.tally.nextId()).settle();
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  return on.ending();
};

/** An answer whose second half comes after GOAWAY. */
export const longStream: Client = async (context) => {
  const on = await Http2Held.open(context);
  const id = context.tally.nextId();
  const stream = on.get(id, 'body', 60_000);
  await stream.head();
  context.opened();
  await within('GOAWAY', on.told);
  await context.moments.told;
  context.release(id);
  await stream.settle(answerBody(id, 60_000));
  return on.ending();
};

/** 4 MiB, of which a quarter is sent before GOAWAY. */
export const largeUpload: Client = async (context) => {
  const on = await Http2Held.open(context);
  const id = context.tally.nextId();
  const body = Buffer.alloc(4 * 1024 * 1024, answerBody(id, 1000));
  const stream = on.stream(id, { ':method': 'POST', ':path': '/echo' }, false);
  stream.stream.write(body.subarray(0, body.length / 4));
  context.opened();
  await within('GOAWAY', on.told);
  await context.moments.told;
  stream.stream.end(body.subarray(body.length / 4));
  await stream.settle(body);
  return on.ending();
};
