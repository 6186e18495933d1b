import { DEFAULT_POLICY, type DrainOrder, decodeReport, encodeReply, MAX_REPORT_BYTES } from '@sluice/contract';
import { FakeHost } from '@sluice/wasm-filter/fake-host';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FilterTable } from './filter-table.ts';

type Step =
  | { readonly do: 'open' | 'restart'; readonly n: number }
  | { readonly do: 'close' | 'request' | 'end' | 'command' | 'mark' | 'cut'; readonly n: number }
  /** One tick; the agent's answer arrives, is refused, fails, or arrives although the filter thinks that it failed. */
  | { readonly do: 'tick'; readonly answer: 'ok' | 'refused' | 'failed' | 'unheard' | 'late' };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('open' as const), n: fc.nat(30) }) },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constantFrom('close', 'request', 'end', 'command', 'mark', 'cut'), n: fc.nat(1000) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('restart' as const), n: fc.nat(0) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('tick' as const),
      answer: fc.constantFrom('ok', 'ok', 'ok', 'refused', 'failed', 'unheard', 'late'),
    }),
  },
) as fc.Arbitrary<Step>;

const ORDER: DrainOrder = {
  v: 1,
  upgradeId: 'u',
  epoch: 3,
  version: 1,
  action: 'drain',
  policy: DEFAULT_POLICY,
  cutoffAgeMs: 0,
  issuedAt: 1,
};
const ROUTES = ['', 'pay', 'chat'];

interface Truth {
  readonly id: bigint;
  streams: number[];
  route: string;
  /** Asked for by an agent that lived on, so it has to come; by any agent, so it may. */
  marked: 'no' | 'perhaps' | 'yes';
  cut: boolean;
}

/** A filter, its agent, and what is true. */
class World {
  readonly host = new FakeHost(3);
  table = new FilterTable(3, { now: () => this.now });
  readonly open = new Map<number, Truth>();
  #nextId = 0n;

  get now(): number {
    return Number(this.host.now / 1_000_000n);
  }

  run(s: Step): void {
    switch (s.do) {
      case 'open':
        for (let i = 0; i < s.n; i++) {
          const id = this.#nextId++;
          this.open.set(this.host.open(id), { id, streams: [], route: '', marked: 'no', cut: false });
        }
        return;
      case 'restart':
        this.table = new FilterTable(3, { now: () => this.now });
        for (const c of this.open.values()) {
          c.cut = false;
          if (c.marked === 'yes') c.marked = 'perhaps';
        }
        return;
      case 'tick':
        this.tick(s.answer);
        return;
      default:
        this.#onOne(s.do, s.n);
    }
  }

  #onOne(what: 'close' | 'request' | 'end' | 'command' | 'mark' | 'cut', n: number): void {
    const all = [...this.open];
    const picked = all[n % Math.max(1, all.length)];
    if (picked === undefined) return;
    const [context, connection] = picked;
    if (what === 'close') {
      this.open.delete(context);
      for (const stream of connection.streams) this.host.end(stream);
      this.host.close(context, 2);
    } else if (what === 'request') {
      connection.route = ROUTES[n % ROUTES.length] as string;
      connection.streams.push(this.host.request('drain', connection.id, 'HTTP/2', new Map(), connection.route));
    } else if (what === 'mark' || what === 'cut') {
      // Only what the table knows can be chosen.
      const known = this.table.connections().some((c) => c.id === String(connection.id));
      this.table[what]([String(connection.id)]);
      if (known && what === 'mark') connection.marked = 'yes';
      else if (known) connection.cut = true;
    } else if (what === 'command') this.table.close([String(connection.id)]);
    else {
      const stream = connection.streams.pop();
      if (stream !== undefined) this.host.end(stream);
    }
  }

  tick(answer: 'ok' | 'refused' | 'failed' | 'unheard' | 'late'): void {
    this.table.subscribe(3_000_000, this.now);
    this.host.tick();
    for (let n = 0; n < 50; n++) {
      const call = this.host.calls[0];
      if (call === undefined || answer === 'late') return;
      this.host.calls.shift();
      expect(call.body.length).toBeLessThanOrEqual(MAX_REPORT_BYTES);
      if (answer === 'refused') call.answer(503);
      else if (answer === 'failed') call.answer(undefined);
      else {
        const reply = encodeReply(this.table.apply(decodeReport(call.body), this.now));
        if (answer === 'ok') call.answer(200, reply);
        else call.answer(undefined);
      }
      this.#closedByCommand();
    }
  }

  #closedByCommand(): void {
    for (const [context, { streams }] of this.open) {
      if (this.host.properties(context).size > 0) continue;
      for (const stream of streams) this.host.end(stream);
      this.open.delete(context);
    }
  }
}

describe('filter and table', () => {
  it('agree again after any history of changes, losses and restarts', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 100, size: 'max' }), (steps) => {
        const world = new World();
        for (const s of steps) world.run(s);
        // Longest retry 2 s, a heartbeat after that, a snapshot asked for, a snapshot told.
        for (let i = 0; i < 60; i++) world.tick('ok');
        const { table, open } = world;
        expect(table.open()).toBe(open.size);
        expect(table.complete() || open.size === 0).toBe(true);
        const known = table.connections().map((c) => [c.id, c.inFlight ?? 0] as const);
        const truth = [...open.values()].map((c) => [String(c.id), c.streams.length] as const);
        expect(new Map(known)).toEqual(new Map(truth));
        expect(known).toHaveLength(truth.length);
        const routes = (of: readonly { id: string | bigint; route?: string }[]) =>
          new Map(of.map((c) => [String(c.id), c.route ?? '']));
        expect(routes(table.connections())).toEqual(routes([...open.values()]));
        expect([...open.values()].filter((c) => c.cut)).toEqual([]);
        world.host.configure('drain', JSON.stringify(ORDER));
        for (const c of open.values()) {
          const leaves = world.host.response(world.host.request('drain', c.id, 'HTTP/2'));
          if (c.marked !== 'perhaps') expect(leaves).toBe(c.marked === 'yes');
          if (table.connections().some((k) => k.id === String(c.id) && k.marked)) expect(leaves).toBe(true);
        }
        expect(table.faults).toBe(0);
      }),
      { numRuns: 300 },
    );
  });

  it('agree over more connections than one report holds', () => {
    const world = new World();
    world.run({ do: 'open', n: 9_000 });
    for (let i = 0; i < 40; i++) world.tick('ok');
    expect(world.table.complete()).toBe(true);
    expect(world.table.connections()).toHaveLength(9_000);
    world.run({ do: 'open', n: 5_000 });
    for (let i = 0; i < 8_000; i++) world.run({ do: 'close', n: i * 7 });
    for (let i = 0; i < 4; i++) world.tick('ok');
    expect(world.table.connections()).toHaveLength(6_000);
    expect(world.table.faults).toBe(0);
  });
});
