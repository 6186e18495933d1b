import { countEnded, DEFAULT_POLICY, type EndedConnection, type EndedView, type UpgradeView } from '@sluice/contract';
import { expect, it } from 'vitest';
import { recordLines } from '../view/record.ts';
import { encodeRecord, recordOf } from './record.ts';

const AT = Date.UTC(2026, 0, 1, 12);
const ended = (id: string, change: Partial<EndedConnection> = {}): EndedConnection => ({
  connection: {
    epoch: 0,
    id,
    peer: `10.0.0.1:${id}`,
    local: '10.0.0.2:80',
    listener: 'in, "out"',
    protocol: 'http2',
    openedAt: AT - 5_000,
    route: '=cmd()',
  },
  at: AT + 4_000,
  how: 'left',
  lever: 'age-pressure',
  reason: 'told-to-leave',
  rule: 'default',
  ...change,
});
const cut = { how: 'cut', lever: 'cut', reason: 'upgrade', rule: 'sockets' } as const;
const items = [ended('1'), ended('2', { ...cut, released: 'memory' }), ended('3', cut)];
const view: EndedView = { upgradeId: 'u1', items, counts: countEnded(items), dropped: 7 };
const step = (seq: number, at: number, phase: UpgradeView['phase'], event = 'phase') => ({
  upgradeId: 'u1',
  proxy: 'edge',
  seq,
  at: AT + at,
  phase,
  event,
  text: `${event} ${phase}`,
});
const upgrade: UpgradeView = {
  id: 'u1',
  proxy: 'edge',
  phase: 'Done',
  reason: 'over',
  target: { to: '1.40.0' },
  policy: DEFAULT_POLICY,
  from: '1.38.3',
  to: '1.40.0',
  method: 'hot-restart',
  epoch: 1,
  oldEpoch: 0,
  createdAt: AT,
  phaseSince: AT + 6_000,
  drainStartedAt: AT + 2_000,
  safeToResetAt: AT + 5_000,
  resetAt: AT + 6_000,
  order: { version: 9, appliedAt: AT + 2_100, via: 'xds' },
  checks: [{ name: 'binary', ok: true, found: 'runs' }],
  override: { by: 'jo', reason: 'must', at: AT + 5_500 },
  connections: { old: 3, drained: 1, cut: [] },
  firstEstimate: { at: AT + 2_000, endsAt: AT + 4_500, endsLate: AT + 9_000, observed: 3 },
  record: [
    step(1, 0, 'Preflight'),
    step(2, 1_000, 'Draining'),
    step(3, 2_100, 'Draining', 'order-applied'),
    step(4, 6_000, 'Done'),
  ],
};

it('has phases with times, and the estimate beside the truth', () => {
  const record = recordOf(upgrade, view);
  expect(record.phases).toEqual([
    { phase: 'Idle', at: AT, ms: 0 },
    { phase: 'Preflight', at: AT, ms: 1_000 },
    { phase: 'Draining', at: AT + 1_000, ms: 5_000 },
    { phase: 'Done', at: AT + 6_000 },
  ]);
  expect(record.estimate).toMatchObject({ endedAt: AT + 5_000, lateMs: 500 });
  expect(record.steps).toHaveLength(4);
  expect(JSON.parse(encodeRecord(record, 'json'))).toEqual(JSON.parse(JSON.stringify(record)));
});

it('for a person: who ended how, and whose word cut each one', () => {
  const text = recordLines(recordOf(upgrade, view)).join('\n');
  expect(text).toContain('upgrade u1 of edge: 1.38.3 -> 1.40.0, Done after 6.0s');
  expect(text).toContain('method hot-restart; epoch 0 gave way to 1; drain order 9 applied 12:00:02.100 by xds');
  expect(text).toContain('policy: limit 10m; at a limit wait; 500 told a second, oldest first; no rules');
  expect(text).toMatch(/Draining +12:00:01\.000 +5\.0s/);
  expect(text).toContain(
    'estimate at 12:00:02.000: over in 2.5s, 7.0s at most likely, by 3 ends seen before; it took 3.0s (500ms later than likely)',
  );
  expect(text).toMatch(/left +age-pressure +http2 +default +1/);
  expect(text).toContain('0/2  10.0.0.1:2  http2  rule sockets: cut at 12:00:04.000 by memory:');
  expect(text).toContain('0/3  10.0.0.1:3  http2  rule sockets: cut at 12:00:04.000 by the override of jo');
  expect(text).toContain('7 more connections ended and were not kept one by one');
});

it('ndjson is one object a line, each with its kind', () => {
  const lines = encodeRecord(recordOf(upgrade, view), 'ndjson')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(new Set(lines.map(({ kind }) => kind))).toEqual(
    new Set(['upgrade', 'phase', 'step', 'estimate', 'count', 'ended', 'end']),
  );
  expect(lines.filter(({ kind }) => kind === 'ended')).toHaveLength(3);
  expect(lines.at(-1)).toEqual({ kind: 'end', items: 3, dropped: 7 });
});

it('csv quotes what it must, and no cell is a formula', () => {
  const rows = encodeRecord(recordOf(upgrade, view), 'csv').trimEnd().split('\r\n');
  expect(rows).toHaveLength(4);
  expect(rows[0]?.split(',')).toHaveLength(22);
  expect(rows[1]).toContain(`"in, ""out""",'=cmd(),http2,2026-01-01T11:59:55.000Z`);
  expect(rows[2]).toMatch(/,cut,cut,sockets,upgrade,memory,,,,,$/);
  expect(rows[3]).toMatch(/,cut,cut,sockets,upgrade,,jo,,,,$/);
});

it('what the end of its agent cut is told apart from an override, with its reason', () => {
  const { override: _, ...rest } = upgrade;
  const why = 'not drained within 5000 ms';
  const record = recordOf({ ...rest, connections: { old: 3, drained: 1, cut: [], why } }, view);
  const rows = encodeRecord(record, 'csv').trimEnd().split('\r\n');
  expect(rows[3]).toMatch(/,cut,cut,sockets,upgrade,,termination,,,,$/);
  const text = recordLines(record).join('\n');
  expect(text).toContain(`ended before its verdict was safe: ${why}`);
  expect(text).toContain('cut at 12:00:04.000 by the end of its agent');
});

it('says of each connection how right its first estimate was, and of all that ended as they would', () => {
  const estimated = (id: string, lateMs: number, change: Partial<EndedConnection> = {}): EndedConnection => {
    const at = AT + 4_000;
    return ended(id, { estimate: { at: AT, endsAt: at - lateMs, endsLate: at - lateMs + 1_000, lateMs }, ...change });
  };
  const all = [
    ended('0', { estimate: { at: AT } }),
    estimated('1', -300),
    estimated('2', 500, { how: 'closed-idle' }),
    estimated('3', 2_000),
    estimated('4', -100),
    estimated('5', 90_000, cut),
  ];
  const record = recordOf(upgrade, { ...view, items: all });
  expect(record.accuracy).toEqual({ connections: 4, medianErrorMs: 400, byLatest: 3 });
  expect(recordOf(upgrade, { ...view, items: all.slice(0, 4) }).accuracy).toMatchObject({ medianErrorMs: 500 });
  const text = recordLines(record).join('\n');
  expect(text).toContain(
    'estimates of 4 connections that ended as they would: median error 400ms; 3 had ended by the latest that was said',
  );
  expect(text).toContain('estimated for 11:58:34.000: 1m30s later');
  const rows = encodeRecord(record, 'csv').split('\r\n');
  expect(rows[0]?.endsWith(',estimated_at,estimated_end,estimated_latest,late_ms')).toBe(true);
  expect(rows[2]).toMatch(/,2026-01-01T12:00:00.000Z,2026-01-01T12:00:04.300Z,2026-01-01T12:00:05.300Z,-300$/);
  const kinds = encodeRecord(record, 'ndjson').split('\n');
  expect(kinds.find((line) => line.includes('"accuracy"'))).toContain('"medianErrorMs":400');
});

it('of an upgrade that drained nothing yet there is a record too', () => {
  const { firstEstimate: _, order: __, override: ___, ...rest } = upgrade;
  const bare = recordOf(
    { id: 'u2', proxy: 'edge', policy: rest.policy },
    { ...view, items: [], counts: [], dropped: 0 },
  );
  expect(bare).toMatchObject({ phases: [], steps: [], ended: { items: [] } });
  expect(recordLines(bare)[0]).toBe('upgrade u2 of edge: ? -> ?');
});
