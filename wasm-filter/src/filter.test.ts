import {
  AGENT_CLUSTER,
  type Command,
  DEFAULT_POLICY,
  decodeReport,
  encodeReply,
  NOT_KNOWN,
  REPORT_PATH,
} from '@sluice/contract';
import { beforeEach, describe, expect, it } from 'vitest';
import { type Call, FakeHost } from './fake-host.ts';

const EPOCH = 3;

function order(version: number, change: object = {}): string {
  const all = {
    v: 1,
    upgradeId: 'u"{[,',
    epoch: EPOCH,
    version,
    action: 'drain',
    policy: DEFAULT_POLICY,
    cutoffAgeMs: 0,
  };
  return JSON.stringify({ ...all, issuedAt: 1, ...change });
}

describe('the filter', () => {
  let host: FakeHost;
  beforeEach(() => {
    host = new FakeHost(EPOCH);
  });

  /** Ticks until the filter posts; its report, answered with these commands. */
  function next(commands: readonly Command[] = [], status: number | null = 200) {
    for (let i = 0; i < 100 && host.calls.length === 0; i++) host.tick();
    const call = host.calls.shift() as Call;
    const report = decodeReport(call.body);
    call.answer(status ?? undefined, encodeReply(commands));
    return report;
  }

  /** Tracking, with the first snapshot told. */
  function tracking() {
    next([{ type: 'subscribe', ms: 3_600_000 }]);
    return next();
  }

  it('posts counters only, to the agent, while nobody asks for more', () => {
    host.open(7n);
    host.tick();
    const call = host.calls[0] as Call;
    expect(call.cluster).toBe(AGENT_CLUSTER);
    expect([...call.headers]).toContainEqual([':path', REPORT_PATH]);
    expect([...call.headers]).toContainEqual([':method', 'POST']);
    expect(next()).toMatchObject({ epoch: EPOCH, seq: 1, tracking: false, open: 1, openedTotal: 1, records: [] });
    host.close(host.open(8n), 2);
    expect(next()).toMatchObject({ seq: 2, open: 1, openedTotal: 2, closedTotal: 1, records: [] });
    expect(host.tickMs).toBe(1000);
  });

  it('has one call outstanding at most', () => {
    host.open(1n);
    for (let i = 0; i < 8; i++) host.tick();
    expect(host.calls).toHaveLength(1);
    // A host that never answers: the report is given up, and a new one begun.
    for (let i = 0; i < 10; i++) host.tick();
    expect(host.calls).toHaveLength(2);
  });

  it('tells a snapshot first, then every change, when subscribed', () => {
    const first = host.open(1n);
    host.open(2n);
    const told = tracking();
    expect(told).toMatchObject({ snapshotFirst: true, snapshotLast: true, tracking: true, open: 2 });
    expect(told.records).toMatchObject([
      { kind: 'open', id: '1', peer: '10.0.0.1:1', local: '10.0.0.2:80', listener: 'web', protocol: 'unknown' },
      { kind: 'open', id: '2' },
    ]);
    expect(told.records[0]).not.toHaveProperty('inFlight');
    expect(host.tickMs).toBe(100);
    host.close(first, 2);
    host.open(3n);
    // Opened and closed between two reports: counters only.
    host.close(host.open(4n), 1);
    expect(next().records).toMatchObject([
      { kind: 'close', id: '1', by: 'peer' },
      { kind: 'open', id: '3' },
    ]);
    next([{ type: 'subscribe', ms: 0 }]);
    expect(next()).toMatchObject({ tracking: false, records: [] });
    expect(host.tickMs).toBe(1000);
  });

  it.each([
    ['the call failed', null],
    ['the agent refused it', 503],
  ])('tells everything again when %s', (_why, status) => {
    host.open(1n);
    tracking();
    host.open(2n);
    expect(next([], status)).toMatchObject({ snapshotFirst: false });
    host.open(3n);
    const again = next();
    expect(again).toMatchObject({ snapshotFirst: true, snapshotLast: true });
    expect(again.records).toHaveLength(3);
  });

  it('retries with growing delay while the host has no such cluster, and goes on', () => {
    host.callable = false;
    host.open(1n);
    for (let i = 0; i < 20; i++) host.tick();
    host.callable = true;
    expect(next()).toMatchObject({ open: 1 });
  });

  it('relays an order until it is acknowledged, and obeys only newer ones for its epoch', () => {
    expect(host.configure('drain', order(5))).toBe(1);
    expect(host.tickMs).toBe(100);
    expect(next()).toMatchObject({ draining: true, tracking: true, orderVersion: 5 });
    expect(next().records).toContainEqual({ kind: 'order', json: order(5) });
    expect(next([{ type: 'ackOrder', version: 4 }]).records).toHaveLength(1);
    expect(next([{ type: 'ackOrder', version: 5 }]).records).toHaveLength(1);
    expect(next().records).toEqual([]);
    // Each listener configures the same resource once more.
    for (const ignored of [order(5), order(4), order(9, { epoch: EPOCH + 1 }), order(9, { action: 'pause' })])
      expect(host.configure('drain', ignored)).toBe(1);
    for (const broken of [
      '',
      '{',
      '[]',
      'x',
      '"',
      '{"version":9,"epoch":3',
      '{"epoch":3,"version":-9,"action":"drain"}',
    ])
      expect(host.configure('drain', broken)).toBe(1);
    expect(next()).toMatchObject({ draining: true, orderVersion: 5, records: [] });
    host.configure('drain', ` {"policy": {"version": 99, "x": ["}"]} , "action" : "stop" ,"epoch":3,"version":6 }`);
    expect(next()).toMatchObject({ draining: false, tracking: false, orderVersion: 6 });
    expect(next([{ type: 'ackOrder', version: 6 }]).records).toMatchObject([{ kind: 'order' }]);
    expect(next().records).toEqual([]);
    expect(host.tickMs).toBe(1000);
  });

  it('counts what the HTTP parts see, an upgrade through both once', () => {
    host.open(1n);
    host.open(2n);
    tracking();
    const upgrade = host.request('upgrade', 1n, 'HTTP/1.1');
    const shared = new Map([...host.properties(upgrade)].filter(([key]) => key === 'sluice.counted'));
    const behind = host.request('drain', 1n, 'HTTP/1.1', shared);
    const streams = [host.request('drain', 2n, 'HTTP/2'), host.request('drain', 2n, 'HTTP/2')];
    host.body(streams[0] as number, 500);
    expect(next().records).toMatchObject([
      { kind: 'update', id: '1', protocol: 'upgrade', inFlight: 1 },
      { kind: 'update', id: '2', protocol: 'http2', inFlight: 2, bytes: 500 },
    ]);
    host.end(behind);
    host.end(upgrade);
    for (const stream of streams) host.end(stream);
    expect(next().records).toMatchObject([
      { kind: 'update', id: '1', protocol: 'http1', inFlight: 0 },
      { kind: 'update', id: '2', protocol: 'http2', inFlight: 0 },
    ]);
  });

  it('closes what it is told to, but nothing with a request in flight', () => {
    for (const id of [1n, 2n, 3n]) host.open(id);
    tracking();
    host.request('drain', 2n, 'HTTP/1.1');
    next(['1', '2', '77'].map((id): Command => ({ type: 'close', id })));
    const report = next();
    expect(report).toMatchObject({ open: 2 });
    expect(report.records).toMatchObject([{ kind: 'close', id: '1', by: 'command' }]);
  });

  it('cuts what it is told to, requests in flight or not', () => {
    for (const id of [1n, 2n]) host.open(id);
    tracking();
    host.request('drain', 2n, 'HTTP/2');
    next([
      { type: 'cut', id: '2' },
      { type: 'cut', id: '99' },
    ]);
    expect(next()).toMatchObject({ open: 1, records: [{ kind: 'close', id: '2', by: 'command' }] });
  });

  it('tells the next responses of a marked connection to leave, of no other one, until the order is taken back', () => {
    for (const id of [1n, 2n]) host.open(id);
    host.configure('drain', order(5));
    expect(next()).toMatchObject({ marks: true });
    const begun = [1n, 2n].map((id) => host.request('drain', id, 'HTTP/2'));
    expect(begun.map((stream) => host.response(stream))).toEqual([false, false]);
    const running = host.request('drain', 1n, 'HTTP/2');
    next([
      { type: 'mark', id: '1' },
      { type: 'mark', id: '77' },
    ]);
    expect(host.response(running)).toBe(true);
    expect(host.response(host.request('drain', 2n, 'HTTP/2'))).toBe(false);
    expect(host.response(host.request('drain', 1n, 'HTTP/2'))).toBe(true);
    // The response that begins an upgrade begins what the connection is for.
    expect(host.response(host.request('upgrade', 1n, 'HTTP/1.1'))).toBe(false);
    host.configure('drain', order(6, { action: 'stop' }));
    expect(host.response(host.request('drain', 1n, 'HTTP/2'))).toBe(false);
    host.configure('drain', order(7));
    expect(host.response(host.request('drain', 1n, 'HTTP/2'))).toBe(false);
  });

  it('tells the route of the newest request, when it changes and in each snapshot', () => {
    host.open(1n);
    tracking();
    const request = (route: string) => host.end(host.request('drain', 1n, 'HTTP/2', new Map(), route));
    const routes = (records: readonly { readonly kind: string }[]) => records.filter((r) => r.kind === 'route');
    request('');
    expect(routes(next().records)).toEqual([]);
    request('pay');
    request('pay');
    expect(routes(next().records)).toEqual([{ kind: 'route', id: '1', route: 'pay' }]);
    request('pay');
    expect(routes(next().records)).toEqual([]);
    request('chat');
    expect(routes(next([{ type: 'snapshot' }]).records)).toEqual([{ kind: 'route', id: '1', route: 'chat' }]);
    const again = next();
    expect(again.snapshotFirst).toBe(true);
    expect(again.records.map((r) => r.kind)).toEqual(['open', 'route']);
    request('');
    expect(routes(next().records)).toEqual([{ kind: 'route', id: '1', route: '' }]);
    next([{ type: 'snapshot' }]);
    for (let i = 0; i < 10; i++) host.tick();
    expect(next().records.map((r) => r.kind)).toEqual(['open']);
  });

  it('ignores a reply that makes no sense', () => {
    host.open(1n);
    for (const body of ['x', 'SLC1', 'SLC1\u0001\0\u0005\0\u0002', 'SLC1\u0001\0\u0001\0\u0009', 'y'.repeat(5000)]) {
      for (let i = 0; i < 10 && host.calls.length === 0; i++) host.tick();
      host.calls.shift()?.answer(200, Buffer.from(body));
    }
    expect(next()).toMatchObject({ open: 1, tracking: false });
    expect(host.log).toEqual([]);
  });

  it('says that its epoch is not known', () => {
    host = new FakeHost(undefined);
    host.configure('drain', order(1));
    expect(next()).toMatchObject({ epoch: NOT_KNOWN, draining: false });
  });

  it('keeps its memory flat over a million requests and 100,000 connections', () => {
    tracking();
    const run = (connections: number) => {
      for (let n = 0; n < connections; n++) {
        const id = BigInt(n);
        const connection = host.open(id);
        for (let i = 0; i < 10; i++) {
          const stream = host.request('drain', id, 'HTTP/2', new Map(), i % 3 === 0 ? 'a' : 'other');
          host.response(stream);
          host.body(stream, 10);
          host.end(stream);
        }
        host.close(connection, 2);
        if (n % 100 === 0) next();
      }
    };
    run(2_000);
    const warm = host.memoryBytes;
    run(100_000);
    expect(host.memoryBytes).toBe(warm);
    expect(warm).toBeLessThan(1024 * 1024);
  }, 120_000);
});
