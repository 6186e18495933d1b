import net from 'node:net';

export type LeanProtocol = 'http1' | 'http2' | 'grpc';

/** What a connection tells its owner. Times are the owner's to take: each is told as it happens. */
export interface LeanEvents {
  opened?(): void;
  /** `wrong`: why it is not the whole right answer; absent = it is. */
  answered(id: string, wrong?: string): void;
  /** It was told to leave: GOAWAY, or `Connection: close` on an answer. Once, before `ended`. */
  told(): void;
  /** Nothing comes any more. Requests without an answer have been told to `answered` before, as wrong. */
  ended(why: string): void;
}

/**
 * A raw connection: no retry, no pool, every request answered wholly and rightly or named. `close()` ends it in the
 * protocol's way once nothing is in flight.
 */
export abstract class LeanConnection {
  readonly socket: net.Socket;
  protected readonly events: LeanEvents;
  /** Told to leave or ended: nothing more is to be sent. */
  leaving = false;
  private over = false;

  constructor(host: string, port: number, events: LeanEvents) {
    this.events = events;
    this.socket = net.connect({ host, port, noDelay: true });
    this.socket.on('connect', () => events.opened?.());
    this.socket.on('data', (chunk: Buffer) => this.read(chunk));
    this.socket.on('error', (error: NodeJS.ErrnoException) => this.end(error.code ?? error.message));
    this.socket.on('end', () => this.end('FIN'));
    this.socket.on('close', () => this.end('closed'));
  }

  abstract get inFlight(): number;
  abstract request(id: string, delayMs?: number): void;
  protected abstract read(chunk: Buffer): void;
  /** Names every request that has no answer. */
  protected abstract abandon(why: string): void;

  /** Half-closes when nothing is in flight; what is in flight is waited for. */
  close(): void {
    this.leaving = true;
    if (this.inFlight === 0) this.socket.end();
  }

  protected tell(): void {
    if (this.leaving) return;
    this.leaving = true;
    this.events.told();
  }

  private end(why: string): void {
    if (this.over) return;
    this.over = true;
    this.leaving = true;
    this.abandon(why);
    this.events.ended(why);
    this.socket.destroy();
  }
}
