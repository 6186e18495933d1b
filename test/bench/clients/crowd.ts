import net from 'node:net';
import { WebSocket } from 'ws';
import type { LeanConnection, LeanEvents } from './lean.ts';
import { LeanHttp1 } from './lean-http1.ts';
import { LeanHttp2 } from './lean-http2.ts';

export type Kind = 'http1-busy' | 'http1-fresh' | 'http1-idle' | 'http2-idle' | 'grpc-stream' | 'websocket' | 'tcp';

export interface Ports {
  readonly http: number;
  readonly tcp: number;
}

export interface CrowdOptions {
  readonly host: string;
  readonly ports: Ports;
  /** How many connections of each kind; of `http1-fresh` how many new ones a second. */
  readonly members: Readonly<Partial<Record<Kind, number>>>;
  /** The last WebSocket or TCP session ends so long after `drain`, the others evenly before it. */
  readonly sessionsEndMs: number;
}

export interface ConnectionRecord {
  readonly kind: Kind;
  localPort: number;
  readonly openedAt: number;
  endedAt?: number;
  /** When the last request or session on it ended; absent while one is on it. */
  freeAt?: number;
  /** It was ended by the other side with a request or a session on it. */
  cut: boolean;
}

/** `drain`: the drain begins; new connections go to `ports` from now on, where they are given. */
export type CrowdQuestion = 'start' | 'report' | { readonly drain: Ports | undefined };

const ECHO_EVERY_MS = 500;
const BUSY_EVERY_MS = 1_000;
const LONGEST_DELAY_MS = 300;
const STREAM_MS = [10_000, 20_000] as const;
const FIRST_SESSION_END_MS = 5_000;

/** Clients of one traffic mix, with the fate of each of their connections. None retries. */
export class Crowd {
  readonly records: ConnectionRecord[] = [];
  readonly failures: string[] = [];
  private readonly options: CrowdOptions;
  private ports: Ports;
  private sequence = 0;
  private readonly sessions: (() => void)[] = [];

  constructor(options: CrowdOptions) {
    this.options = options;
    this.ports = options.ports;
  }

  start(): void {
    const { members } = this.options;
    const times = (kind: Kind, once: (i: number) => void) => {
      for (let i = 0; i < (members[kind] ?? 0); i++) once(i);
    };
    times('http1-busy', () => this.busy());
    times('http1-idle', () => this.idle('http1-idle'));
    times('http2-idle', () => this.idle('http2-idle'));
    times('grpc-stream', () => this.streams());
    times('websocket', () => this.websocket());
    times('tcp', () => this.tcp());
    const fresh = members['http1-fresh'] ?? 0;
    if (fresh > 0) setInterval(() => this.fresh(), 1000 / fresh);
  }

  drain(ports: Ports | undefined): void {
    this.ports = ports ?? this.ports;
    const { sessions } = this;
    const step = (this.options.sessionsEndMs - FIRST_SESSION_END_MS) / Math.max(1, sessions.length - 1);
    for (const [i, end] of sessions.entries()) setTimeout(end, FIRST_SESSION_END_MS + i * step);
  }

  private record(kind: Kind): ConnectionRecord {
    const record: ConnectionRecord = { kind, localPort: 0, openedAt: Date.now(), cut: false };
    this.records.push(record);
    return record;
  }

  /** A lean connection with its record; `next` is called once, when it is told to leave or has ended. */
  private lean(kind: Kind, next: () => void, onAnswer: () => void = () => {}): LeanConnection {
    const record = this.record(kind);
    let left = false;
    const leave = () => {
      if (left) return;
      left = true;
      next();
    };
    const events: LeanEvents = {
      opened: () => {
        record.localPort = connection.socket.localPort ?? 0;
      },
      answered: (_id, wrong) => {
        record.freeAt = Date.now();
        if (wrong === undefined) return onAnswer();
        // Also when it was reset or refused: nothing may stop half-way.
        record.cut = true;
        this.failures.push(`${kind}: ${wrong}`);
      },
      told: leave,
      ended: () => {
        record.endedAt = Date.now();
        leave();
      },
    };
    const { host } = this.options;
    const connection: LeanConnection = kind.startsWith('http1')
      ? new LeanHttp1(host, this.ports.http, events)
      : new LeanHttp2(host, this.ports.http, events);
    return connection;
  }

  private id(): string {
    return `crowd/${this.sequence++}`;
  }

  private busy(): void {
    let connection = this.lean('http1-busy', () => {
      replaced();
    });
    const replaced = () => {
      connection = this.lean('http1-busy', replaced);
    };
    const ask = () => {
      if (connection.inFlight === 0 && !connection.leaving) {
        (connection as LeanHttp1).request(this.id(), Math.floor(Math.random() * LONGEST_DELAY_MS));
      }
      setTimeout(ask, BUSY_EVERY_MS * (0.5 + Math.random()));
    };
    ask();
  }

  private fresh(): void {
    const connection = this.lean(
      'http1-fresh',
      () => {},
      () => connection.close(),
    ) as LeanHttp1;
    connection.request(this.id(), Math.floor(Math.random() * LONGEST_DELAY_MS));
  }

  /** One request, then silence; when it is told to leave or closed, another one. */
  private idle(kind: 'http1-idle' | 'http2-idle'): void {
    this.lean(kind, () => this.idle(kind)).request(this.id());
  }

  /** One stream after the other; on a new connection once the old one was told to leave. */
  private streams(): void {
    const [shortest, longest] = STREAM_MS;
    let connection: LeanHttp2;
    const open = () => {
      connection = this.lean('grpc-stream', () => {}, again) as LeanHttp2;
    };
    const run = (lengthMs: number) => {
      if (connection.leaving) open();
      const id = this.id();
      const stream = connection.stream(id);
      const echo = setInterval(() => stream.send(id), ECHO_EVERY_MS);
      setTimeout(() => {
        clearInterval(echo);
        stream.end();
      }, lengthMs);
    };
    const again = () => run(shortest + Math.random() * (longest - shortest));
    open();
    // The first ones are shorter, so that at each moment some are young and some are old.
    run(Math.random() * longest);
  }

  private websocket(): void {
    const record = this.record('websocket');
    const { host } = this.options;
    const socket = new WebSocket(`ws://${host}:${this.ports.http}/`, { perMessageDeflate: false });
    let ending = false;
    let echo: NodeJS.Timeout | undefined;
    socket.on('upgrade', (response) => {
      record.localPort = response.socket.localPort ?? 0;
    });
    socket.on('open', () => {
      echo = setInterval(() => socket.send(this.id()), ECHO_EVERY_MS);
    });
    socket.on('error', () => {});
    socket.on('close', (code) => this.sessionEnded(record, ending, echo, `close ${code}`));
    this.sessions.push(() => {
      ending = true;
      clearInterval(echo);
      socket.close(1000);
    });
  }

  private tcp(): void {
    const record = this.record('tcp');
    const socket = net.connect({ host: this.options.host, port: this.ports.tcp, noDelay: true });
    let ending = false;
    let echo: NodeJS.Timeout | undefined;
    socket.on('connect', () => {
      record.localPort = socket.localPort ?? 0;
      echo = setInterval(() => socket.write(`${this.id()}\n`), ECHO_EVERY_MS);
    });
    socket.on('error', () => {});
    socket.resume();
    socket.on('close', (failed) => this.sessionEnded(record, ending, echo, failed ? 'reset' : 'FIN'));
    this.sessions.push(() => {
      ending = true;
      clearInterval(echo);
      socket.end();
    });
  }

  private sessionEnded(record: ConnectionRecord, ending: boolean, echo: NodeJS.Timeout | undefined, why: string): void {
    clearInterval(echo);
    record.endedAt ??= Date.now();
    record.freeAt = record.endedAt;
    if (ending) return;
    record.cut = true;
    this.failures.push(`${record.kind}: session ended by ${why}`);
  }
}
