import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import { Conditions } from '../harness/conditions.ts';
import { neverSent } from '../harness/load/http2-streams.ts';

const WAYS = ['kept', 'fresh', 'http2'] as const;
type Way = (typeof WAYS)[number];

interface Heard {
  readonly way: Way;
  readonly pid: number;
}

/**
 * Asks two servers again and again, one request after the other on each way: a kept HTTP/1 connection, a new one for each
 * request, an HTTP/2 session. Both servers answer with their process id. Nothing is asked twice.
 */
export class Asking {
  readonly heard: Heard[] = [];
  readonly failures: string[] = [];
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  readonly #conditions = new Conditions();
  readonly #http1: number;
  readonly #http2: number;
  #session: http2.ClientHttp2Session | undefined;
  /** Of its newest GOAWAY. */
  #lastStreamId: number | undefined;
  #loops: Promise<void>[] | undefined;
  #over = false;

  constructor(http1: number, http2Port: number) {
    this.#http1 = http1;
    this.#http2 = http2Port;
  }

  /** From now on, on every way. Begins to ask with its first call. */
  async untilEachHeard(pid: number): Promise<void> {
    this.#loops ??= WAYS.map((way) => this.#loop(way));
    await this.#conditions.until(`every way hears of ${pid}`, () =>
      WAYS.every((way) => this.heard.some((one) => one.way === way && one.pid === pid)),
    );
  }

  async stop(): Promise<void> {
    this.#over = true;
    await Promise.all(this.#loops ?? []);
    this.#agent.destroy();
    this.#session?.destroy();
  }

  async #loop(way: Way): Promise<void> {
    while (!this.#over) {
      try {
        const { status, body } = await (way === 'http2' ? this.#byHttp2() : this.#byHttp1(way));
        if (status === 200) this.heard.push({ way, pid: Number(body) });
        else this.failures.push(`${way}: ${status}`);
      } catch (error) {
        if (!(error instanceof NotSent)) this.failures.push(`${way}: ${error}`);
      }
      this.#conditions.changed();
    }
  }

  async #byHttp1(way: Way) {
    const agent = way === 'kept' ? this.#agent : false;
    const [response] = await once(http.get({ host: '127.0.0.1', port: this.#http1, agent }), 'response');
    return { status: response.statusCode as number, body: await text(response) };
  }

  async #byHttp2() {
    // One that was told to leave takes no request any more.
    if (this.#session === undefined || this.#session.closed || this.#session.destroyed) {
      this.#session = http2.connect(`http://127.0.0.1:${this.#http2}`);
      this.#session.on('error', (error) => this.failures.push(`http2 session: ${error.message}`));
      this.#lastStreamId = undefined;
      this.#session.on('goaway', (_, last) => {
        this.#lastStreamId = last;
      });
    }
    const stream = this.#session.request({ ':path': '/' });
    const closed = new Promise((resolve) => stream.once('close', resolve));
    try {
      const [headers] = await once(stream, 'response');
      return { status: headers[':status'] as number, body: await text(stream) };
    } catch (error) {
      await closed;
      throw neverSent(stream, this.#lastStreamId) ? new NotSent() : error;
    }
  }
}

/** The client's own library kept it back, because the session had been told to leave: no request was lost. */
class NotSent extends Error {}

async function text(from: AsyncIterable<Buffer>): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of from) parts.push(part);
  return Buffer.concat(parts).toString('utf8');
}
