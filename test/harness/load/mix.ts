import type { LoadClient, Targets } from './client.ts';
import { type ConnectFailure, ConnectionLog } from './connections.ts';
import { GrpcBidiClient, GrpcUnaryClient } from './grpc.ts';
import { Http1Client, IdleHttp1Client } from './http1.ts';
import { Http2Client, IdleHttp2Client } from './http2.ts';
import { RefusedStreams } from './http2-streams.ts';
import { type Mismatch, reconcile } from './reconcile.ts';
import { TcpClient, WebSocketClient } from './session.ts';
import { type Counts, countBetween, type Failure } from './tally.ts';

export interface MixOptions {
  /** Requests per second of all request clients together. */
  readonly rate: number;
  /** Length of bidi streams, WebSockets and TCP sessions. */
  readonly sessionMs: number;
}

export interface ClientResult extends Counts {
  readonly name: string;
  readonly failures: readonly Failure[];
}

/** All clients of the load, and the log of their connections. */
export class Mix {
  readonly clients: readonly LoadClient[];
  readonly idleHttp1: IdleHttp1Client;
  readonly idleHttp2: IdleHttp2Client;
  readonly log: ConnectionLog;
  private readonly refused = new RefusedStreams();

  constructor(targets: Targets, { rate, sessionMs }: MixOptions) {
    this.log = new ConnectionLog((failure) => this.connectFailed(failure));
    this.idleHttp1 = new IdleHttp1Client(targets, 3);
    this.idleHttp2 = new IdleHttp2Client(targets, 3);
    const part = (percent: number) => (rate * percent) / 100;
    const maxDelayMs = 300;
    this.clients = [
      new Http1Client(targets, { name: 'http1-get', connections: 16, rate: part(25), maxDelayMs }),
      new Http1Client(targets, { name: 'http1-post', connections: 8, rate: part(12), post: true, maxDelayMs }),
      new Http1Client(targets, { name: 'http1-fresh', connections: 12, rate: part(12), fresh: true }),
      new Http2Client(targets, { name: 'http2', sessions: 6, rate: part(25), maxDelayMs }),
      new GrpcUnaryClient(targets, this.refused, 4, part(12)),
      new Http2Client(targets, { name: 'tls-http2', sessions: 2, rate: part(8), tls: true, maxDelayMs }),
      new Http1Client(targets, { name: 'tls-http1', connections: 4, rate: part(4), tls: true, maxDelayMs }),
      new Http1Client(targets, { name: 'tls-fresh', connections: 2, rate: part(2), tls: true, fresh: true }),
      new GrpcBidiClient(targets, this.refused, 4, sessionMs),
      new WebSocketClient(targets, 6, sessionMs),
      new TcpClient(targets, 6, sessionMs),
      this.idleHttp2,
      this.idleHttp1,
    ];
  }

  start(): void {
    for (const client of this.clients) client.start();
  }

  /** Ends the load: begins nothing new, lets everything end. */
  async stop(): Promise<void> {
    await Promise.all(this.clients.map((client) => client.stop()));
    this.log.close();
    this.refused.close();
  }

  counts(from?: number, to?: number): ClientResult[] {
    return this.clients.map(({ tally }) => ({
      name: tally.name,
      ...countBetween(tally, from, to),
      failures: tally.failures.filter(({ at }) => at >= (from ?? 0) && at <= (to ?? Number.POSITIVE_INFINITY)),
    }));
  }

  /** Counts what the upstream contradicts as failed. Once, after `stop`. */
  reconcile(seen: ReadonlyMap<string, number>): Mismatch[] {
    const mismatches = reconcile(
      this.clients.map(({ tally }) => tally),
      seen,
    );
    for (const { client, id, what, counted } of mismatches) {
      const tally = this.clients.find(({ name }) => name === client)?.tally;
      if (counted === 'answered') tally?.demote(id, what);
      else if (counted === 'no') tally?.fail(id, what);
    }
    return mismatches;
  }

  private connectFailed({ client, what, at }: ConnectFailure): void {
    const tally = this.clients.find(({ name }) => name === client)?.tally;
    tally?.fail(tally.nextId(), what, at);
  }
}
