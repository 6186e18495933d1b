import { type Command, DEFAULT_POLICY, type DrainOrder, type OpenRecord, type Report } from '@sluice/contract';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { FilterTable } from './filter-table.ts';

const NOW = 1_700_000_000_000;

const order: DrainOrder = {
  v: 1,
  upgradeId: 'u1',
  epoch: 3,
  version: 2,
  action: 'drain',
  policy: DEFAULT_POLICY,
  cutoffAgeMs: 0,
  issuedAt: NOW,
};

function open(id: number): OpenRecord {
  return {
    kind: 'open',
    id: String(id),
    openedAt: NOW,
    protocol: 'unknown',
    tls: false,
    listener: 'web',
    peer: `10.0.0.1:${id}`,
    local: '10.0.0.2:80',
    bytes: 0,
  };
}

let seq = 0;
function report(change: Partial<Report> = {}): Report {
  return {
    snapshotFirst: false,
    snapshotLast: false,
    draining: false,
    tracking: true,
    more: false,
    marks: true,
    epoch: 3,
    seq: seq++,
    vm: '1',
    now: NOW,
    orderVersion: 0,
    open: 0,
    openedTotal: 0,
    closedTotal: 0,
    requestsEnded: 0,
    records: [],
    ...change,
  };
}

const snapshot = (ids: readonly number[], change: Partial<Report> = {}) =>
  report({ snapshotFirst: true, snapshotLast: true, open: ids.length, records: ids.map(open), ...change });

const ids = (table: FilterTable) =>
  table
    .connections()
    .map((c) => Number(c.id))
    .sort((a, b) => a - b);

const asksForSnapshot = (commands: readonly Command[]) => commands.some((c) => c.type === 'snapshot');

describe('FilterTable', () => {
  let table: FilterTable;
  beforeEach(() => {
    table = new FilterTable(3, { now: () => NOW });
    seq = 0;
  });

  it('counts in the steady state without knowing single connections', () => {
    expect(table.heardAt).toBeUndefined();
    expect(table.apply(report({ tracking: false, open: 7 }), NOW)).toEqual([]);
    table.apply(report({ tracking: false, open: 2, vm: '2', seq: 0 }), NOW + 5);
    expect(table.open()).toBe(9);
    expect(table.connections()).toEqual([]);
    expect(table.complete()).toBe(false);
    // The one heard least recently bounds how old the count is.
    expect(table.heardAt).toBe(NOW);
  });

  it('does not take for its list what a quiet VM said before others came', async () => {
    table.apply(report({ open: 0 }), NOW);
    let listed = false;
    const waiting = table.snapshot(60_000, 2).then(() => {
      listed = true;
    });
    await Promise.resolve();
    expect([table.complete(), listed]).toEqual([true, false]);
    table.apply(snapshot([1, 2]), NOW);
    await waiting;
    expect(ids(table)).toEqual([1, 2]);
  });

  it('follows a snapshot in parts, then deltas', () => {
    table.apply(report({ snapshotFirst: true, more: true, open: 3, records: [open(1), open(2)] }), NOW);
    expect(table.complete()).toBe(false);
    expect(table.apply(report({ snapshotLast: true, open: 3, records: [open(3)] }), NOW)).toEqual([]);
    expect(table.complete()).toBe(true);
    const update = { kind: 'update', id: '2', protocol: 'http2', inFlight: 4, bytes: 9, lastActivityAt: NOW } as const;
    table.apply(report({ open: 2, records: [{ kind: 'close', id: '1', by: 'peer', at: NOW }, update] }), NOW);
    expect(ids(table)).toEqual([2, 3]);
    expect(table.connections().find((c) => c.id === '2')).toEqual({
      epoch: 3,
      id: '2',
      peer: '10.0.0.1:2',
      local: '10.0.0.2:80',
      listener: 'web',
      protocol: 'http2',
      openedAt: NOW,
      inFlight: 4,
      bytes: 9,
      lastActivityAt: NOW,
    });
    expect(table.closedBy.peer).toBe(1);
    expect(table.faults).toBe(0);
  });

  it.each([
    ['a count that does not fit', report({ open: 5, records: [open(9)] })],
    [
      'a change of a connection never opened',
      report({ open: 2, records: [{ kind: 'update', id: '77', protocol: 'http1', bytes: 0 }] }),
    ],
    [
      'an end of a connection never opened',
      report({ open: 2, records: [{ kind: 'close', id: '77', by: 'peer', at: NOW }] }),
    ],
  ])('doubts %s and asks for a snapshot', (_what, lie) => {
    table.apply(snapshot([1, 2], { seq: 0 }), NOW);
    expect(asksForSnapshot(table.apply({ ...lie, seq: 1 }, NOW))).toBe(true);
    expect(table.complete()).toBe(false);
    expect(table.faults).toBe(1);
    // Not with every report.
    expect(asksForSnapshot(table.apply({ ...lie, seq: 2 }, NOW + 100))).toBe(false);
    expect(asksForSnapshot(table.apply({ ...lie, seq: 3 }, NOW + 600))).toBe(true);
    table.apply(snapshot([1, 2], { seq: 4 }), NOW + 700);
    expect(table.complete()).toBe(true);
    expect(ids(table)).toEqual([1, 2]);
  });

  it('asks for a snapshot after a gap, and when it was restarted', () => {
    expect(asksForSnapshot(table.apply(report({ seq: 40, open: 1 }), NOW))).toBe(true);
    table.apply(snapshot([1], { seq: 41 }), NOW);
    expect(asksForSnapshot(table.apply(report({ seq: 43, open: 1 }), NOW + 1000))).toBe(true);
    expect(ids(table)).toEqual([]);
    expect(table.open()).toBe(1);
  });

  it('refuses a report of another epoch', () => {
    expect(table.apply(snapshot([1], { epoch: 4 }), NOW)).toEqual([]);
    expect(table.open()).toBe(0);
    expect(table.lastFault).toContain('epoch 4');
  });

  it('holds no more VMs and connections than it may', () => {
    table = new FilterTable(3, { now: () => NOW, maxVms: 2, maxConnections: 5 });
    for (const vm of ['1', '2', '3']) table.apply(snapshot([1, 2], { vm }), NOW);
    expect(table.open()).toBe(4);
    expect(table.lastFault).toContain('2 VMs');
    table.apply(snapshot([1, 2, 3, 4], { vm: '2' }), NOW);
    expect(ids(table)).toEqual([1, 2]);
    // Still counted: what is not known one by one is protected.
    expect(table.open()).toBe(6);
    expect(table.complete()).toBe(false);
    table.apply(snapshot([1, 2, 3], { vm: '2' }), NOW);
    expect(table.connections()).toHaveLength(5);
  });

  it('forgets a VM that is silent', () => {
    table.apply(snapshot([1, 2]), NOW);
    const changed = vi.fn();
    table.onChange = changed;
    table.apply(snapshot([3], { vm: '2' }), NOW + 16_000);
    expect(ids(table)).toEqual([3]);
    expect(table.open()).toBe(1);
    expect(changed).toHaveBeenCalled();
  });

  it('sends a close to the VM that holds the connection, once', () => {
    table.apply(snapshot([1, 2], { vm: '1', seq: 0 }), NOW);
    table.apply(snapshot([3], { vm: '2', seq: 0 }), NOW);
    table.close(['2', '3', '99']);
    expect(table.apply(report({ vm: '1', seq: 1, open: 2 }), NOW)).toEqual([{ type: 'close', id: '2' }]);
    expect(table.apply(report({ vm: '1', seq: 2, open: 2 }), NOW)).toEqual([]);
    expect(table.apply(report({ vm: '2', seq: 1, open: 1 }), NOW)).toEqual([{ type: 'close', id: '3' }]);
  });

  it('has connections marked and cut by the VM that holds them, and says it again after a snapshot', () => {
    table.apply(snapshot([1, 2], { vm: '1', seq: 0 }), NOW);
    table.apply(snapshot([3], { vm: '2', seq: 0, marks: false }), NOW);
    expect(table.marks).toBe(false);
    table.mark(['2', '3', '99']);
    table.cut(['1', '3']);
    const said = [
      { type: 'mark', id: '2' },
      { type: 'cut', id: '1' },
    ];
    expect(table.apply(report({ vm: '1', seq: 1, open: 2 }), NOW)).toEqual(said);
    expect(table.connections().map((c) => c.marked)).toEqual([undefined, true, undefined]);
    table.mark(['2']);
    expect(table.apply(report({ vm: '1', seq: 2, open: 2 }), NOW)).toEqual([]);
    // A filter from before these commands would drop the rest of the reply.
    expect(table.apply(report({ vm: '2', seq: 1, open: 1, marks: false }), NOW)).toEqual([]);
    // The reply was lost: so the filter begins anew.
    expect(table.apply(snapshot([1, 2], { vm: '1', seq: 3 }), NOW)).toEqual(said);
    expect(table.connections().find((c) => c.id === '2')?.marked).toBe(true);
    table.apply(snapshot([], { vm: '2', seq: 2, marks: false }), NOW);
    expect(table.marks).toBe(true);
    const ends = { kind: 'close', id: '1', by: 'command', at: NOW } as const;
    table.apply(report({ vm: '1', seq: 4, open: 1, records: [ends] }), NOW);
    expect(table.apply(snapshot([2], { vm: '1', seq: 5 }), NOW)).toEqual([{ type: 'mark', id: '2' }]);
  });

  it('marks nothing any more once the order is taken back', () => {
    table.apply(snapshot([1, 2], { seq: 0 }), NOW);
    table.mark(['1']);
    const stop = { kind: 'order', json: JSON.stringify({ ...order, action: 'stop' }) } as const;
    table.apply(report({ seq: 1, open: 2, records: [stop] }), NOW);
    expect(table.connections().map((c) => c.marked)).toEqual([undefined, undefined]);
    expect(table.apply(snapshot([1, 2], { seq: 2 }), NOW)).toEqual([]);
  });

  it('knows the route of the newest request, through changes and until the next snapshot', () => {
    const route = (name: string) => ({ kind: 'route', id: '1', route: name }) as const;
    const routeOf = () => table.connections()[0]?.route;
    table.apply(snapshot([1], { seq: 0 }), NOW);
    table.apply(report({ seq: 1, open: 1, records: [route('pay')] }), NOW);
    expect(routeOf()).toBe('pay');
    const update = { kind: 'update', id: '1', protocol: 'http2', bytes: 0 } as const;
    table.apply(report({ seq: 2, open: 1, records: [update] }), NOW);
    expect(routeOf()).toBe('pay');
    table.apply(report({ seq: 3, open: 1, records: [update, route('')] }), NOW);
    expect(table.connections()[0]).not.toHaveProperty('route');
    table.apply(report({ seq: 4, open: 1, records: [{ ...route('x'), id: '9' }] }), NOW);
    expect(table.lastFault).toContain('route of connection 9');
  });

  it('keeps a subscription alive without asking with every report', () => {
    table.subscribe(10_000, NOW);
    const steady = (at: number) => table.apply(report({ tracking: false }), at);
    expect(steady(NOW)).toEqual([{ type: 'subscribe', ms: 10_000 }]);
    // Its reply was lost, or the VM is a new one.
    expect(steady(NOW + 1_000)).toEqual([{ type: 'subscribe', ms: 9_000 }]);
    expect(table.apply(snapshot([1]), NOW + 1_100)).toEqual([]);
    table.subscribe(30_000, NOW + 2_000);
    expect(table.apply(report({ open: 1 }), NOW + 2_000)).toEqual([{ type: 'subscribe', ms: 30_000 }]);
    expect(table.apply(report({ open: 1 }), NOW + 3_000)).toEqual([]);
    expect(table.apply(report({ tracking: false }), NOW + 33_000)).toEqual([]);
  });

  it('takes an order once, acknowledges it each time, and refuses a wrong one', () => {
    const orders: DrainOrder[] = [];
    table.onOrder = (o) => orders.push(o);
    const bring = (json: string) => table.apply(report({ records: [{ kind: 'order', json }] }), NOW);
    expect(bring(JSON.stringify(order))).toContainEqual({ type: 'ackOrder', version: 2 });
    expect(bring(JSON.stringify(order))).toContainEqual({ type: 'ackOrder', version: 2 });
    expect(bring(JSON.stringify({ ...order, version: 1 }))).toContainEqual({ type: 'ackOrder', version: 1 });
    expect(orders).toEqual([order]);
    expect(table.order()).toEqual(order);
    for (const wrong of [
      '',
      '{',
      'null',
      '[]',
      { ...order, epoch: 4 },
      { ...order, version: 'x' },
      { ...order, version: -1 },
      { ...order, policy: 1 },
    ])
      expect(bring(typeof wrong === 'string' ? wrong : JSON.stringify(wrong)).some((c) => c.type === 'ackOrder')).toBe(
        false,
      );
    expect(table.faults).toBe(8);
    expect(table.order()).toEqual(order);
  });

  it('says when every VM with connections applies an order', () => {
    expect(table.orderReached(2)).toBe(false);
    table.apply(snapshot([1], { vm: '1', orderVersion: 2 }), NOW);
    table.apply(snapshot([3], { vm: '2', orderVersion: 1 }), NOW);
    table.apply(snapshot([], { vm: '3' }), NOW);
    expect(table.orderReached(2)).toBe(false);
    table.apply(snapshot([3], { vm: '2', orderVersion: 2 }), NOW);
    expect(table.orderReached(2)).toBe(true);
  });

  it('gives a snapshot when it has one, or says that none came', async () => {
    table.apply(report({ tracking: false, open: 1, seq: 0 }), NOW);
    await expect(table.snapshot(1)).rejects.toMatchObject({ code: 'TIMEOUT' });
    const soon = table.snapshot(10_000);
    table.apply(snapshot([1], { seq: 1 }), NOW);
    await soon;
    await table.snapshot(0);
    expect(ids(table)).toEqual([1]);
  });
});
