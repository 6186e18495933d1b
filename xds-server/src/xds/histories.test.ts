/** Generated histories: a session and a model client with queues between them, so that everything can cross on its way. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Marks, snapshot } from './fixtures.ts';
import { type Mode, type Outgoing, Session } from './session.ts';
import { Encoder, type Snapshot } from './snapshot.ts';
import type { Request } from './subscription.ts';

type Kind = 'lds' | 'rds';
const NAMES = ['a', 'b', 'c', 'd'];
/** The client refuses a resource with this content. */
const BAD = 9;
const encoder = new Encoder();
const badVersions = new Set(
  (['lds', 'rds'] as const).flatMap((kind) =>
    NAMES.map((name) => snapshot({ [kind]: { [name]: BAD } }, encoder).get(kind, name)!.version),
  ),
);

/**
 * Listeners by wildcard, routes by name. It applies the good listeners of a refused response, as Envoy does, and none
 * of the routes. Under SotW it keeps what it unsubscribed from: whether a crossed request was seen it can not know.
 */
class Client {
  readonly #mode: Mode;
  session: Session;
  snapshot: Snapshot;
  readonly store = { lds: new Map<string, string>(), rds: new Map<string, string>() };
  routes: string[] = [];
  readonly #nonce = { lds: '', rds: '' };
  requests: { kind: Kind; request: Request }[] = [];
  responses: Outgoing[] = [];

  constructor(mode: Mode, first: Snapshot) {
    this.#mode = mode;
    this.session = new Session(mode);
    this.snapshot = first;
    this.connect();
  }

  connect(): void {
    this.session = new Session(this.#mode);
    this.session.setSnapshot(this.snapshot);
    this.requests = [];
    this.responses = [];
    for (const kind of ['lds', 'rds'] as const) {
      this.#nonce[kind] = '';
      if (this.#mode === 'sotw') this.store[kind].clear();
      const names = kind === 'lds' ? [] : this.routes;
      if (kind === 'lds' || names.length > 0)
        this.#request(kind, { names, nonce: '', initial: new Map(this.store[kind]) });
    }
  }

  #request(kind: Kind, request: Request): void {
    this.requests.push({ kind, request });
  }

  setSnapshot(next: Snapshot): void {
    this.snapshot = next;
    this.session.setSnapshot(next);
    this.serve();
  }

  /** The server sends what it has to. */
  serve(): void {
    this.responses.push(...this.session.next());
  }

  subscribe(routes: string[]): void {
    const added = routes.filter((name) => !this.routes.includes(name));
    const gone = this.routes.filter((name) => !routes.includes(name));
    this.routes = routes;
    if (added.length + gone.length === 0) return;
    if (this.#mode === 'sotw') {
      this.#request('rds', { names: routes, nonce: this.#nonce.rds });
      return;
    }
    for (const name of gone) this.store.rds.delete(name);
    // A delta request that begins a kind must name something, or it would ask for everything.
    if (added.length > 0 || this.#begun) this.#request('rds', { names: added, unsubscribe: gone, nonce: '' });
  }

  get #begun(): boolean {
    return this.#nonce.rds !== '' || this.requests.some(({ kind }) => kind === 'rds');
  }

  /** The server takes the next request. */
  takeRequest(): void {
    const next = this.requests.shift();
    if (next === undefined) return;
    this.session.request(next.kind, next.request);
    this.serve();
  }

  /** The client takes the next response. */
  takeResponse(): void {
    const response = this.responses.shift();
    if (response === undefined) return;
    const kind = response.kind as Kind;
    const { plan, nonce } = response;
    this.#nonce[kind] = nonce;
    const store = this.store[kind];
    const bad = plan.resources.some(({ version }) => badVersions.has(version));
    if (this.#mode === 'sotw' && kind === 'lds') {
      const listed = new Set(plan.resources.map(({ name }) => name));
      for (const name of [...store.keys()]) if (!listed.has(name)) store.delete(name);
    }
    for (const { name, version } of plan.resources) {
      const wanted = kind === 'lds' || this.#mode === 'sotw' || this.routes.includes(name);
      const refused = kind === 'lds' && this.#mode === 'sotw' ? badVersions.has(version) : bad;
      if (wanted && !refused) store.set(name, version);
    }
    if (!bad) for (const name of plan.removed) store.delete(name);
    const names = this.#mode === 'sotw' && kind === 'rds' ? this.routes : [];
    this.#request(kind, { names, nonce, ...(bad ? { error: 'bad' } : {}) });
  }

  /** Lets both sides run until nothing is under way. Bounded: a loop of responses would be a fault. */
  settle(): void {
    for (let steps = 0; this.requests.length + this.responses.length > 0; steps += 1) {
      expect(steps).toBeLessThan(500);
      this.takeRequest();
      this.takeResponse();
    }
  }
}

const marks = fc.dictionary(fc.constantFrom(...NAMES), fc.constantFrom(1, 2, 3, BAD), { noNullPrototype: true });
const snapshots: fc.Arbitrary<Marks> = fc.record({ lds: marks, rds: marks });
const routes = fc.uniqueArray(fc.constantFrom(...NAMES));
type Step =
  | { readonly do: 'snapshot'; readonly marks: Marks }
  | { readonly do: 'subscribe'; readonly routes: string[] }
  | { readonly do: 'request' | 'response' | 'reconnect' };
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: snapshots.map((m) => ({ do: 'snapshot' as const, marks: m })) },
  { weight: 3, arbitrary: routes.map((r) => ({ do: 'subscribe' as const, routes: r })) },
  { weight: 6, arbitrary: fc.constant({ do: 'request' as const }) },
  { weight: 6, arbitrary: fc.constant({ do: 'response' as const }) },
  { weight: 1, arbitrary: fc.constant({ do: 'reconnect' as const }) },
);
const history = fc.record({ first: snapshots, steps: fc.array(step, { maxLength: 60 }) });

function run(client: Client, steps: readonly Step[]): void {
  for (const one of steps) {
    switch (one.do) {
      case 'snapshot':
        client.setSnapshot(snapshot(one.marks, encoder));
        break;
      case 'subscribe':
        client.subscribe(one.routes);
        break;
      case 'request':
        client.takeRequest();
        break;
      case 'response':
        client.takeResponse();
        break;
      case 'reconnect':
        client.connect();
        client.serve();
        break;
    }
  }
}

describe.each(['sotw', 'delta'] as const)('%s, any history', (mode) => {
  it('ends with the client having everything good that it wants, and nothing that is gone', () => {
    fc.assert(
      fc.property(history, ({ first, steps }) => {
        const client = new Client(mode, snapshot(first, encoder));
        run(client, steps);
        client.settle();
        for (const kind of ['lds', 'rds'] as const) {
          const wanted = kind === 'lds' ? NAMES : client.routes;
          for (const name of wanted) {
            const target = client.snapshot.get(kind, name);
            const has = client.store[kind].get(name);
            if (target !== undefined && !badVersions.has(target.version))
              expect([name, has]).toEqual([name, target.version]);
            // SotW has no word for a route that is gone; it goes with its listener.
            if (target === undefined && (mode === 'delta' || kind === 'lds'))
              expect([name, has]).toEqual([name, undefined]);
          }
        }
      }),
      { numRuns: 1_000 },
    );
  });

  it('sends nothing to a client that has everything, however the same content comes', () => {
    fc.assert(
      fc.property(history, ({ first, steps }) => {
        const client = new Client(mode, snapshot(first, encoder));
        run(client, steps);
        client.settle();
        expect(client.session.next()).toEqual([]);
        const last: Marks = Object.fromEntries(
          (['lds', 'rds'] as const).map((kind) => [
            kind,
            Object.fromEntries(
              NAMES.flatMap((name) => {
                const version = client.snapshot.get(kind, name)?.version;
                const mark = [1, 2, 3, BAD].find(
                  (m) => snapshot({ [kind]: { [name]: m } }, encoder).get(kind, name)?.version === version,
                );
                return mark === undefined ? [] : [[name, mark]];
              }),
            ),
          ]),
        );
        client.setSnapshot(snapshot(last, encoder));
        expect(client.responses).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });

  it('is not moved by a nonce that is not the last one', () => {
    fc.assert(
      fc.property(history, fc.boolean(), ({ first, steps }, refused) => {
        const client = new Client(mode, snapshot(first, encoder));
        run(client, steps);
        client.settle();
        const stale: Request = { names: [], nonce: 'stale', ...(refused ? { error: 'bad' } : {}) };
        expect(client.session.request('lds', stale)).toBeUndefined();
        expect(client.session.next()).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});
