import { ID_HEADER } from '../../harness/upstream/answers.ts';
import { clientPreface, FLAG, FRAME, type Frame, FrameReader, frame, headerBlock, saysOk } from './frames.ts';
import { LeanConnection, type LeanEvents } from './lean.ts';

/** A server may send this much on the connection before it needs a new allowance. */
const GRANT_AFTER_BYTES = 16_384;

const GRPC_HEADERS: [string, string][] = [
  ['content-type', 'application/grpc'],
  ['te', 'trailers'],
];

interface Stream {
  readonly id: string;
  ok: boolean;
  /** What came, and what was to come. */
  body: string;
  expected: string;
}

/** HTTP/2 without TLS; with `grpc` each request is a unary call, whose answer is an echo of its message. */
export class LeanHttp2 extends LeanConnection {
  private readonly grpc: boolean;
  private readonly reader = new FrameReader();
  private readonly streams = new Map<number, Stream>();
  private next = 1;
  private received = 0;

  constructor(host: string, port: number, events: LeanEvents, grpc = false) {
    super(host, port, events);
    this.grpc = grpc;
    this.socket.write(clientPreface());
  }

  override get inFlight(): number {
    return this.streams.size;
  }

  /** `delayMs`: how long the upstream takes; not for gRPC. */
  override request(id: string, delayMs = 0): void {
    const stream = this.begin(id, this.grpc ? grpcMessage(id).toString('latin1') : `${id}\n`);
    if (!this.grpc) {
      const block = headerBlock('GET', `/echo?size=0&delay=${delayMs}`, 'bench', [[ID_HEADER, id]]);
      this.socket.write(frame(FRAME.headers, FLAG.endHeaders | FLAG.endStream, stream, block));
      return;
    }
    const block = headerBlock('POST', '/sluice.load.Echo/Unary', 'bench', GRPC_HEADERS);
    const data = frame(FRAME.data, FLAG.endStream, stream, grpcMessage(id));
    this.socket.write(Buffer.concat([frame(FRAME.headers, FLAG.endHeaders, stream, block), data]));
  }

  /** A bidirectional gRPC stream: each `send` is echoed, `end` half-closes, the answer is the whole of the echoes. */
  stream(id: string): { send(text: string): void; end(): void } {
    const stream = this.begin(id, '');
    const block = headerBlock('POST', '/sluice.load.Echo/Bidi', 'bench', GRPC_HEADERS);
    this.socket.write(frame(FRAME.headers, FLAG.endHeaders, stream, block));
    return {
      send: (text) => {
        const known = this.streams.get(stream);
        if (known === undefined) return;
        const message = grpcMessage(text);
        known.expected += message.toString('latin1');
        this.socket.write(frame(FRAME.data, 0, stream, message));
      },
      end: () => {
        if (this.streams.has(stream)) this.socket.write(frame(FRAME.data, FLAG.endStream, stream, Buffer.alloc(0)));
      },
    };
  }

  private begin(id: string, expected: string): number {
    const stream = this.next;
    this.next += 2;
    this.streams.set(stream, { id, ok: false, body: '', expected });
    return stream;
  }

  protected override read(chunk: Buffer): void {
    for (const one of this.reader.push(chunk)) this.take(one);
  }

  private take({ type, flags, stream, payload }: Frame): void {
    switch (type) {
      case FRAME.settings:
        if ((flags & FLAG.ack) === 0) this.socket.write(frame(FRAME.settings, FLAG.ack, 0, Buffer.alloc(0)));
        break;
      case FRAME.ping:
        if ((flags & FLAG.ack) === 0) this.socket.write(frame(FRAME.ping, FLAG.ack, 0, payload));
        break;
      case FRAME.goaway:
        this.goaway(payload.readUInt32BE(0) & 0x7fffffff);
        break;
      case FRAME.rstStream:
        this.finish(stream, `stream reset, code ${payload.readUInt32BE(0)}`);
        break;
      case FRAME.headers: {
        const known = this.streams.get(stream);
        // A second block is trailers.
        if (known !== undefined && !known.ok) known.ok = saysOk(payload);
        if ((flags & FLAG.endStream) !== 0) this.finish(stream);
        break;
      }
      case FRAME.data: {
        const known = this.streams.get(stream);
        if (known !== undefined) known.body += payload.toString('latin1');
        this.grant(payload.length);
        if ((flags & FLAG.endStream) !== 0) this.finish(stream);
        break;
      }
    }
  }

  /** A graceful GOAWAY comes twice: first with the largest id, then with the last stream that the server took. */
  private goaway(last: number): void {
    this.tell();
    for (const stream of [...this.streams.keys()]) {
      if (stream > last) this.finish(stream, `refused by GOAWAY: stream ${stream} above ${last}`);
    }
    if (this.streams.size === 0) this.socket.end();
  }

  private finish(stream: number, wrong?: string): void {
    const known = this.streams.get(stream);
    if (known === undefined) return;
    this.streams.delete(stream);
    const right = known.ok && known.body === known.expected;
    const why = wrong ?? (right ? undefined : `wrong answer: ${known.body.length} bytes`);
    this.events.answered(known.id, why);
    if (this.leaving && this.streams.size === 0) this.socket.end();
  }

  private grant(bytes: number): void {
    this.received += bytes;
    if (this.received < GRANT_AFTER_BYTES) return;
    const allowance = Buffer.alloc(4);
    allowance.writeUInt32BE(this.received);
    this.received = 0;
    this.socket.write(frame(FRAME.windowUpdate, 0, 0, allowance));
  }

  protected override abandon(why: string): void {
    for (const { id } of this.streams.values()) this.events.answered(id, `${why} before the answer`);
    this.streams.clear();
  }
}

/** Not compressed, length, message: the id and a newline, as the upstream reads it. */
function grpcMessage(id: string): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(id.length + 1, 1);
  return Buffer.concat([head, Buffer.from(`${id}\n`, 'latin1')]);
}
