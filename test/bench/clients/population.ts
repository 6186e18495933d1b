import type { LeanConnection, LeanEvents, LeanProtocol } from './lean.ts';
import { LeanHttp1 } from './lean-http1.ts';
import { LeanHttp2 } from './lean-http2.ts';

export interface PopulationOptions {
  readonly host: string;
  readonly port: number;
  readonly connections: number;
  /** They are opened at this rate, as a real population came up over time. */
  readonly openPerSecond: number;
  /** Requests per second of the busiest and of the quietest connection; in between evenly by order of magnitude. */
  readonly fastest: number;
  readonly slowest: number;
}

export interface Reconnect {
  readonly at: number;
  readonly protocol: LeanProtocol;
  /** What made it: the server told it to leave, or ended it untold. */
  readonly why: 'told' | 'ended';
}

export interface PopulationReport {
  readonly open: number;
  readonly answered: number;
  readonly reconnects: readonly Reconnect[];
  readonly failed: number;
  /** The first of them. */
  readonly failures: readonly string[];
  /** Connects that were refused or took as long as a lost SYN. */
  readonly badConnects: number;
}

const SLOW_CONNECT_MS = 900;
const PROTOCOLS: readonly LeanProtocol[] = ['http1', 'http2', 'grpc'];

/** Rate of the i-th of n: evenly spread over the orders of magnitude between the two. */
export function rateOf(i: number, n: number, fastest: number, slowest: number): number {
  return fastest * (slowest / fastest) ** (n === 1 ? 0 : i / (n - 1));
}

/**
 * Clients of pools that keep one connection each: one that is told to leave, or closed, opens a new connection at once,
 * as a busy mesh client does, and goes on with its rate there. Requests come at random (Poisson) at each one's rate.
 */
export class Population {
  private readonly options: PopulationOptions;
  private readonly reconnects: Reconnect[] = [];
  private readonly failures: string[] = [];
  private open = 0;
  private answered = 0;
  private failed = 0;
  private badConnects = 0;
  private sequence = 0;

  constructor(options: PopulationOptions) {
    this.options = options;
  }

  /** Until all are open and each has had one answer. */
  async start(): Promise<void> {
    const { connections, openPerSecond, fastest, slowest } = this.options;
    // One order for the protocols and another for the rates, so that no protocol is the busy one, nor the old one.
    const rates = shuffled(Array.from({ length: connections }, (_, i) => rateOf(i, connections, fastest, slowest)));
    const begun = performance.now();
    const first: Promise<void>[] = [];
    while (first.length < connections) {
      const due = Math.min(connections, ((performance.now() - begun) / 1000) * openPerSecond);
      for (let i = first.length; i < due; i++) {
        first.push(this.member(PROTOCOLS[i % PROTOCOLS.length] ?? 'http1', rates[i] ?? slowest));
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await Promise.all(first);
  }

  report(): PopulationReport {
    const { open, answered, reconnects, failed, failures, badConnects } = this;
    return { open, answered, reconnects, failed, failures, badConnects };
  }

  /** Resolves at its first answer. */
  private member(protocol: LeanProtocol, rate: number): Promise<void> {
    return new Promise((resolve) => {
      let current = this.connect(protocol, replace, resolve);
      const self = this;
      function replace(why: Reconnect['why']): void {
        self.reconnects.push({ at: Date.now(), protocol, why });
        current = self.connect(protocol, replace, resolve);
      }
      this.ask(current);
      const again = () => {
        setTimeout(
          () => {
            // HTTP/1 has no place for a second request: a client would wait, at these rates it is rare.
            if (protocol !== 'http1' || current.inFlight === 0) this.ask(current);
            again();
          },
          -Math.log(1 - Math.random()) * (1000 / rate),
        );
      };
      again();
    });
  }

  private ask(connection: LeanConnection): void {
    if (!connection.leaving) connection.request(`pop/${this.sequence++}`);
  }

  private connect(
    protocol: LeanProtocol,
    replace: (why: Reconnect['why']) => void,
    onAnswer: () => void,
  ): LeanConnection {
    const begun = Date.now();
    let state: 'opening' | 'open' | 'left' = 'opening';
    const events: LeanEvents = {
      opened: () => {
        state = 'open';
        this.open++;
        if (Date.now() - begun > SLOW_CONNECT_MS) this.badConnects++;
      },
      answered: (_id, wrong) => {
        if (wrong === undefined) {
          this.answered++;
          onAnswer();
          return;
        }
        this.failed++;
        if (this.failures.length < 20) this.failures.push(`${protocol}: ${wrong}`);
      },
      told: () => {
        state = 'left';
        replace('told');
      },
      ended: () => {
        if (state === 'opening') {
          this.badConnects++;
          setTimeout(() => replace('ended'), 1000);
          return;
        }
        this.open--;
        if (state === 'open') replace('ended');
      },
    };
    const { host, port } = this.options;
    return protocol === 'http1'
      ? new LeanHttp1(host, port, events)
      : new LeanHttp2(host, port, events, protocol === 'grpc');
  }
}

function shuffled<T>(values: T[]): T[] {
  for (let i = values.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [values[i], values[j]] = [values[j] as T, values[i] as T];
  }
  return values;
}
