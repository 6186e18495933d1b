import type net from 'node:net';

/** The answer to one request, whole. */
export interface Answer {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Buffer;
  /** After a chunked body. */
  readonly trailers: ReadonlyMap<string, string>;
}

/**
 * One HTTP/1.1 connection on a raw socket, one request at a time. Own, because node:http's agent hides which connection a
 * request went to. It honours `Connection: close` (RFC 9112 9.6), and an answer that is cut short is an error.
 */
export class Http1Connection {
  readonly socket: net.Socket;
  /** The server said `Connection: close`, or the connection has ended: send nothing more. */
  done = false;
  /** Resolves with what ended it: `FIN`, `ECONNRESET`, ... */
  readonly closed: Promise<string>;
  private buffered: Buffer = Buffer.alloc(0);
  private ended: string | undefined;
  private waiting: (() => void) | undefined;

  constructor(socket: net.Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => {
      this.buffered = this.buffered.length === 0 ? chunk : Buffer.concat([this.buffered, chunk]);
      this.waiting?.();
    });
    const closing = Promise.withResolvers<string>();
    this.closed = closing.promise;
    const end = (why: string) => {
      this.ended ??= why;
      closing.resolve(this.ended);
      this.done = true;
      this.waiting?.();
    };
    socket.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
    socket.on('end', () => end('FIN'));
    socket.on('close', () => end('closed'));
    socket.on('timeout', () => socket.destroy(new Error('no answer in time')));
  }

  /** @throws Error when the whole answer did not come: a reset, a FIN in the middle, nothing within the bound */
  async request(head: string, body: Buffer | undefined, limitMs: number): Promise<Answer> {
    this.socket.setTimeout(limitMs);
    this.socket.write(body === undefined ? head : Buffer.concat([Buffer.from(head), body]));
    try {
      return await this.answer();
    } finally {
      this.socket.setTimeout(0);
    }
  }

  close(): void {
    this.done = true;
    this.socket.end();
  }

  /** The next answer, of a request written by the caller; an interim one (100) too. @throws Error as `request` */
  async answer(): Promise<Answer> {
    let end = this.buffered.indexOf('\r\n\r\n');
    while (end < 0) {
      await this.more('before the answer');
      end = this.buffered.indexOf('\r\n\r\n');
    }
    const [first = '', ...lines] = this.take(end + 4)
      .toString('latin1')
      .trimEnd()
      .split('\r\n');
    const headers = fieldsOf(lines);
    const trailers = new Map<string, string>();
    const body = await this.body(headers, trailers);
    if (headers.get('connection')?.toLowerCase() === 'close') this.done = true;
    return { status: Number(first.split(' ')[1]), headers, body, trailers };
  }

  private async body(headers: ReadonlyMap<string, string>, trailers: Map<string, string>): Promise<Buffer> {
    if (headers.get('transfer-encoding') !== 'chunked') {
      const length = Number(headers.get('content-length') ?? 0);
      while (this.buffered.length < length) await this.more(`after ${this.buffered.length} of ${length} bytes`);
      return this.take(length);
    }
    const parts: Buffer[] = [];
    for (;;) {
      const size = Number.parseInt(await this.line(), 16);
      if (size === 0) {
        for (let line = await this.line(); line !== ''; line = await this.line()) {
          for (const [name, value] of fieldsOf([line])) trailers.set(name, value);
        }
        return Buffer.concat(parts);
      }
      while (this.buffered.length < size + 2) await this.more('inside a chunk');
      parts.push(this.take(size));
      this.take(2);
    }
  }

  private async line(): Promise<string> {
    let end = this.buffered.indexOf('\r\n');
    while (end < 0) {
      await this.more('inside a chunked body');
      end = this.buffered.indexOf('\r\n');
    }
    return this.take(end + 2)
      .toString('latin1')
      .trimEnd();
  }

  private take(length: number): Buffer {
    const taken = this.buffered.subarray(0, length);
    this.buffered = this.buffered.subarray(length);
    return taken;
  }

  private async more(where: string): Promise<void> {
    if (this.ended !== undefined) throw new Error(`${this.ended} ${where}`);
    const before = this.buffered.length;
    while (this.buffered.length === before) {
      await new Promise<void>((resolve) => {
        this.waiting = resolve;
      });
      this.waiting = undefined;
      if (this.buffered.length === before && this.ended !== undefined) throw new Error(`${this.ended} ${where}`);
    }
  }
}

function fieldsOf(lines: readonly string[]): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(':');
    fields.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
  }
  return fields;
}

export interface Ask {
  readonly id: string;
  readonly path: string;
  readonly host: string;
  readonly idHeader: string;
  readonly body?: Buffer;
  readonly close?: boolean;
}

export function requestHead(ask: Ask): string {
  const method = ask.body === undefined ? 'GET' : 'POST';
  const length = ask.body === undefined ? '' : `content-length: ${ask.body.length}\r\n`;
  const close = ask.close === true ? 'connection: close\r\n' : '';
  return `${method} ${ask.path} HTTP/1.1\r\nhost: ${ask.host}\r\n${ask.idHeader}: ${ask.id}\r\n${length}${close}\r\n`;
}
