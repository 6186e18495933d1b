import { now } from './clock.ts';
import type { LeanEvents } from './lean.ts';
import { LeanHttp1 } from './lean-http1.ts';
import { LeanHttp2 } from './lean-http2.ts';

export interface OpenLoopOptions {
  readonly host: string;
  readonly port: number;
  readonly http2Port: number;
  /** Makes the ids of this run its own. */
  readonly name: string;
  readonly http2Connections: number;
}

export interface Failed {
  readonly at: number;
  readonly what: string;
}

export interface OpenLoopReport {
  /** Epoch ms at which each request was due, and how long after that its whole answer was there. In order of the answers. */
  readonly due: Float64Array;
  readonly latencyMs: Float64Array;
  readonly failures: readonly Failed[];
}

/** `rate`: begin, on schedule. `hold`: one request that takes so long, so that the old side has work until then. */
export type OpenLoopQuestion =
  | { readonly saturate: { readonly ms: number; readonly inFlight: number } }
  | { readonly rate: number }
  | { readonly hold: number }
  | 'report';

/** Of ten requests six go by kept HTTP/1 connections, three by HTTP/2, one by a connection of its own. */
const SHARES: readonly ('http1' | 'http2' | 'fresh')[] = [
  'http1',
  'http2',
  'http1',
  'fresh',
  'http1',
  'http2',
  'http1',
  'http2',
  'http1',
  'http1',
];
const SLOW_CONNECT_MS = 900;
const MAX_KEPT = 1_000;
/** A pool closes what it did not need for so long; the client closes, so no request is on its way. */
const KEEP_IDLE_MS = 2_000;

/**
 * Requests by the clock and not by the answers: each is due at a moment and its latency counts from there, so that a
 * stall is felt by all that were due in it (no coordinated omission). Clients as a mesh has them, which never retry.
 */
export class OpenLoop {
  private readonly options: OpenLoopOptions;
  private readonly idle: { readonly connection: LeanHttp1; readonly since: number }[] = [];
  private readonly http2: LeanHttp2[] = [];
  private readonly waiting = new Map<string, (wrong: string | undefined) => void>();
  private readonly due: number[] = [];
  private readonly latencyMs: number[] = [];
  private readonly failures: Failed[] = [];
  private sequence = 0;
  private turn = 0;

  constructor(options: OpenLoopOptions) {
    this.options = options;
    for (let i = 0; i < options.http2Connections; i++) this.http2.push(this.openHttp2(i));
    setInterval(() => this.closeUnneeded(), KEEP_IDLE_MS / 4);
  }

  /** Answers a second with so many requests in flight all the time. */
  async saturate(ms: number, inFlight: number): Promise<number> {
    const until = now() + ms;
    let answered = 0;
    const loop = async () => {
      while (now() < until) {
        await new Promise<void>((resolve) => {
          this.send(() => {
            answered++;
            resolve();
          });
        });
      }
    };
    await Promise.all(Array.from({ length: inFlight }, loop));
    return (answered * 1000) / ms;
  }

  run(rate: number): void {
    const begun = now();
    let sent = 0;
    setInterval(() => {
      const elapsed = now() - begun;
      for (; sent < (elapsed / 1000) * rate; sent++) this.timed(begun + (sent * 1000) / rate);
    }, 1);
  }

  hold(ms: number): void {
    const connection = this.openHttp1();
    const done = (wrong: string | undefined) => {
      this.note(now(), wrong && `long request: ${wrong}`);
      connection.close();
    };
    this.ask(connection, done, ms);
  }

  report(): OpenLoopReport {
    return {
      due: Float64Array.from(this.due),
      latencyMs: Float64Array.from(this.latencyMs),
      failures: this.failures,
    };
  }

  private timed(due: number): void {
    this.send((wrong) => {
      if (wrong !== undefined) return this.note(due, wrong);
      this.due.push(due);
      this.latencyMs.push(now() - due);
    });
  }

  private note(at: number, what: string | undefined): void {
    if (what !== undefined) this.failures.push({ at, what });
  }

  private send(done: (wrong: string | undefined) => void): void {
    const share = SHARES[this.turn++ % SHARES.length];
    if (share === 'fresh') {
      const connection = this.openHttp1();
      this.ask(connection, (wrong) => {
        done(wrong);
        connection.close();
      });
    } else if (share === 'http2') {
      const connection = this.http2[this.turn % this.http2.length] as LeanHttp2;
      this.ask(connection, done);
    } else {
      const connection = this.kept() ?? this.openHttp1();
      this.ask(connection, (wrong) => {
        done(wrong);
        if (!connection.leaving && this.idle.length < MAX_KEPT) this.idle.push({ connection, since: now() });
      });
    }
  }

  /** The one used last: those that are not needed stay silent, as in any pool. */
  private kept(): LeanHttp1 | undefined {
    for (;;) {
      const connection = this.idle.pop()?.connection;
      if (connection === undefined || !connection.leaving) return connection;
    }
  }

  private closeUnneeded(): void {
    // The least recently used ones are at the front.
    while (now() - (this.idle[0]?.since ?? Number.POSITIVE_INFINITY) > KEEP_IDLE_MS) {
      this.idle.shift()?.connection.close();
    }
  }

  private ask(connection: LeanHttp1 | LeanHttp2, done: (wrong: string | undefined) => void, delayMs = 0): void {
    const id = `${this.options.name}/${this.sequence++}`;
    this.waiting.set(id, done);
    connection.request(id, delayMs);
  }

  private openHttp1(): LeanHttp1 {
    return new LeanHttp1(
      this.options.host,
      this.options.port,
      this.events('http1', () => {}),
    );
  }

  private openHttp2(i: number): LeanHttp2 {
    const replace = () => {
      this.http2[i] = this.openHttp2(i);
    };
    return new LeanHttp2(this.options.host, this.options.http2Port, this.events('http2', replace));
  }

  private events(protocol: string, replace: () => void): LeanEvents {
    const begun = now();
    let state: 'opening' | 'open' | 'left' = 'opening';
    return {
      opened: () => {
        state = 'open';
        const ms = now() - begun;
        if (ms > SLOW_CONNECT_MS)
          this.note(begun, `${protocol}: connected after ${Math.round(ms)} ms (SYN sent again)`);
      },
      answered: (id, wrong) => {
        const done = this.waiting.get(id);
        this.waiting.delete(id);
        done?.(wrong && `${protocol}: ${wrong}`);
      },
      told: () => {
        state = 'left';
        replace();
      },
      ended: (why) => {
        const before = state;
        state = 'left';
        if (before === 'open') replace();
        // A refused connect without a request on it, HTTP/2's own: tried again, and not a request that failed.
        else if (before === 'opening') setTimeout(replace, why === 'ECONNREFUSED' ? 20 : 1);
      },
    };
  }
}
