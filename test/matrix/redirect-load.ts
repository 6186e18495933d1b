import type { LoadClient, Targets } from '../harness/load/client.ts';
import { ConnectionLog } from '../harness/load/connections.ts';
import { Http1Client, IdleHttp1Client } from '../harness/load/http1.ts';
import { Http2Client, IdleHttp2Client } from '../harness/load/http2.ts';
import { reconcile } from '../harness/load/reconcile.ts';
import { TcpClient, WebSocketClient } from '../harness/load/session.ts';

const RATE = 80;
const SESSION_MS = 1_500;

export interface LoadResult {
  readonly answered: number;
  readonly failures: readonly string[];
}

/** What clients without TLS do, to be started on either side of a Pod's Envoy. */
export class RedirectLoad {
  readonly clients: readonly LoadClient[];
  readonly #log: ConnectionLog;

  constructor(targets: Targets) {
    this.#log = new ConnectionLog(({ client, what }) => {
      const tally = this.clients.find(({ name }) => name === client)?.tally;
      tally?.fail(tally.nextId(), what);
    });
    this.clients = [
      new Http1Client(targets, { name: 'http1', connections: 4, rate: RATE, maxDelayMs: 300 }),
      new Http1Client(targets, { name: 'http1-fresh', connections: 4, rate: RATE, fresh: true }),
      new Http2Client(targets, { name: 'http2', sessions: 2, rate: RATE, maxDelayMs: 300 }),
      new IdleHttp1Client(targets, 2),
      new IdleHttp2Client(targets, 2),
      new WebSocketClient(targets, 2, SESSION_MS),
      new TcpClient(targets, 2, SESSION_MS),
    ];
    for (const client of this.clients) client.start();
  }

  get answered(): number {
    return this.clients.reduce((sum, { tally }) => sum + tally.answered.size, 0);
  }

  async stop(): Promise<void> {
    await Promise.all(this.clients.map((client) => client.stop()));
    this.#log.close();
  }

  /** After `stop`; `seen`: what the upstream of this load saw. */
  result(seen: ReadonlyMap<string, number>): LoadResult {
    const tallies = this.clients.map(({ tally }) => tally);
    return {
      answered: this.answered,
      failures: [
        ...tallies.flatMap(({ name, failures }) => failures.map(({ what }) => `${name}: ${what}`)),
        ...reconcile(tallies, seen).map(({ client, what }) => `${client}: ${what}`),
      ],
    };
  }
}
