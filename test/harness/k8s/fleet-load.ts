import type { LoadClient } from '../load/client.ts';
import { ConnectionLog } from '../load/connections.ts';
import { Http1Client } from '../load/http1.ts';
import { reconcile } from '../load/reconcile.ts';
import { parseSeen } from '../upstream/handle.ts';

const RATE = 3;

/** A modest load on each of many Pods: connections that stay, and new ones, one request each. Nothing is ever repeated. */
export class FleetLoad {
  readonly #clients: readonly LoadClient[];
  readonly #log: ConnectionLog;

  constructor(pods: readonly { readonly name: string; readonly host: string }[], port: number) {
    this.#log = new ConnectionLog(({ client, what }) => {
      const tally = this.#clients.find(({ name }) => name === client)?.tally;
      tally?.fail(tally.nextId(), what);
    });
    this.#clients = pods.flatMap(({ name, host }) => {
      const target = { host, http: port, tls: 0, tcp: 0 };
      return [
        new Http1Client(target, { name: `${name}-kept`, connections: 2, rate: RATE, maxDelayMs: 500 }),
        new Http1Client(target, { name: `${name}-fresh`, connections: 1, rate: RATE, fresh: true }),
      ];
    });
    for (const client of this.#clients) client.start();
  }

  get answered(): number {
    return this.#clients.reduce((sum, { tally }) => sum + tally.answered.size, 0);
  }

  /** Ends it. @param control URL at which the upstream tells what it saw */
  async stop(control: string): Promise<{ readonly answered: number; readonly failures: readonly string[] }> {
    await Promise.all(this.#clients.map((client) => client.stop()));
    this.#log.close();
    const seen = parseSeen(await (await fetch(control)).text());
    const tallies = this.#clients.map(({ tally }) => tally);
    return {
      answered: this.answered,
      failures: [
        ...tallies.flatMap(({ name, failures }) => failures.map(({ what }) => `${name}: ${what}`)),
        ...reconcile(tallies, seen).map(({ client, what }) => `${client}: ${what}`),
      ],
    };
  }
}
