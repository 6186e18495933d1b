import { expect, it } from 'vitest';
import { countersIn, loadBetween, quantile, type Reading, usualBetween } from './load.ts';

const STATS = [
  'cluster.a.upstream_cx_connect_fail: 3',
  'cluster.b.upstream_rq_pending_overflow: 2',
  'listener.0.0.0.0_443.downstream_cx_overflow: 1',
  'listener.0.0.0.0_443.downstream_cx_total: 50',
  'listener.0.0.0.0_443.ssl.connection_error: 4',
  'listener.0.0.0.0_443.ssl.fail_verify_san: 1',
  'listener.0.0.0.0_443.ssl.handshake: 40',
  'listener.0.0.0.0_443.worker_0.downstream_cx_total: 50',
  'listener.0.0.0.0_80.downstream_cx_total: 7',
  'listener.admin.downstream_cx_total: 99',
  '',
].join('\n');

it('counts each connection once, TLS only where it is spoken, and nothing of the admin', () => {
  expect(countersIn(STATS)).toEqual({ refused: 6, opened: 57, openedTls: 50, handshakes: 40, failed: 5 });
  expect(countersIn('')).toEqual({ refused: 0, opened: 0, openedTls: 0, handshakes: 0, failed: 0 });
});

const reading = (more: Partial<Reading>): Reading => ({ at: 0, concurrency: 2, ...countersIn(''), ...more });

it('rates are what happened between two readings', () => {
  const before = reading({ at: 1_000, cpuSeconds: 10, ...countersIn(STATS) });
  const after = {
    ...before,
    at: 3_000,
    cpuSeconds: 12,
    opened: 97,
    openedTls: 90,
    handshakes: 60,
    failed: 7,
    refused: 7,
  };
  expect(loadBetween(before, { ...after, interval: { latencyMs: 12 }, life: { latencyMs: 7 } })).toEqual({
    seconds: 2,
    busy: 0.5,
    refused: 0.5,
    arrivals: 20,
    opened: 20,
    failed: 1,
    unfinished: 9,
    latencyMs: 12,
  });
});

it('two readings of different epochs, or of one moment, say nothing', () => {
  expect(loadBetween(reading({ at: 1, opened: 9 }), reading({ at: 2, opened: 3 }))).toBeUndefined();
  expect(loadBetween(reading({ at: 5 }), reading({ at: 5 }))).toBeUndefined();
});

it('what is usual is what the old epoch had while it accepted; what it counted before says nothing', () => {
  const before = reading({ at: 0, opened: 9_000, refused: 700 });
  const now = reading({ at: 4_000, opened: 9_080, refused: 704, life: { latencyMs: 5 } });
  expect(usualBetween(before, now, 2_000)).toEqual({
    refused: 1,
    arrivals: 40,
    failed: 0,
    unfinished: 0,
    latencyMs: 5,
  });
  expect(usualBetween(before, now, 3_950)).toEqual({ latencyMs: 5 });
  expect(usualBetween(undefined, now, 0)).toEqual({ latencyMs: 5 });
});

it('reads the largest P90 of the connection managers, not the admin’s', () => {
  const text = [
    'cluster.a.upstream_cx_connect_ms: P0(1,1) P90(70,60) P100(9,9)',
    'http.admin.downstream_rq_time: P0(1,1) P90(99,99) P100(1,1)',
    'http.in.downstream_rq_time: P0(nan,0) P90(nan,4.5) P100(nan,9)',
    'http.out.downstream_rq_time: P0(1,1) P90(7.2,3) P100(9,9)',
  ].join('\n');
  expect(quantile(text, 'interval', /downstream_rq_time$/)).toBe(7.2);
  expect(quantile(text, 'cumulative', /downstream_rq_time$/)).toBe(4.5);
  expect(quantile(text, 'interval', /connect_ms$/)).toBe(70);
  expect(quantile('', 'interval', /connect_ms$/)).toBeUndefined();
});
