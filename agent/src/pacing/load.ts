import { readFileSync } from 'node:fs';
import type { Load, Usual } from './usual.ts';

interface Asked {
  readonly pid: number;
  readonly concurrency: number;
  readonly admin: { get(path: string): Promise<string> };
}

/** Counters of one epoch, growing over its life. */
export interface Counters {
  /** Connections and requests refused or failed: for want of room, or of an upstream that could be connected to. */
  readonly refused: number;
  /** Connections accepted by all listeners; and by those that speak TLS, with their handshakes and those that failed. */
  readonly opened: number;
  readonly openedTls: number;
  readonly handshakes: number;
  readonly failed: number;
}

export const COUNTER_KEYS = [
  'refused',
  'opened',
  'openedTls',
  'handshakes',
  'failed',
] as const satisfies (keyof Counters)[];

/** Nine of ten stayed within, ms: requests, and the connecting to upstreams. */
interface Times {
  readonly latencyMs?: number;
  readonly connectMs?: number;
}

/** What an epoch tells of itself at one moment. Plain JSON: the agent of another slot may ask for it. */
export interface Reading extends Counters {
  /** Milliseconds of any clock that only grows, of whoever reads. */
  readonly at: number;
  readonly cpuSeconds?: number;
  readonly concurrency: number;
  /** Of the interval before Envoy's last flush, and of its whole life. */
  readonly interval?: Times;
  readonly life?: Times;
}

/** envoy/source/server/active_tcp_listener, ssl_socket and cluster stats; `worker_N` counts the same once more. */
const COUNTED = [
  String.raw`^listener\..*\.downstream_(cx_total|cx_overflow|global_cx_overflow|cx_overload_reject)$`,
  String.raw`^listener\..*\.ssl\.(handshake|connection_error|fail_verify_\w+)$`,
  String.raw`^cluster\..*\.(upstream_cx_overflow|upstream_cx_pool_overflow|upstream_rq_pending_overflow|upstream_cx_connect_fail)$`,
].join('|');
const TIMED = String.raw`^http\..*\.downstream_rq_time$|^cluster\..*\.upstream_cx_connect_ms$`;
/** Linux counts CPU time in hundredths of a second for user space, whatever the kernel's own tick. */
const TICKS_PER_SECOND = 100;

/** Rejects when the epoch can not be asked. A stat that is not there says nothing. */
export async function readLoad({ pid, concurrency, admin }: Asked): Promise<Reading> {
  const [counted, timed] = await Promise.all([ask(admin, COUNTED), ask(admin, TIMED)]);
  const at = performance.now();
  const cpu = cpuSeconds(pid);
  return {
    at,
    concurrency,
    ...countersIn(counted),
    ...(cpu !== undefined && { cpuSeconds: cpu }),
    interval: timesIn(timed, 'interval'),
    life: timesIn(timed, 'cumulative'),
  };
}

/** What one epoch bore between two readings of it. Pure. undefined: the readings are not of one epoch, or of one moment. */
export function loadBetween(before: Reading, now: Reading): Load | undefined {
  const seconds = (now.at - before.at) / 1_000;
  if (seconds <= 0 || COUNTER_KEYS.some((key) => now[key] < before[key])) return undefined;
  const rate = (key: keyof Counters) => (now[key] - before[key]) / seconds;
  const busy =
    now.cpuSeconds === undefined || before.cpuSeconds === undefined
      ? undefined
      : (now.cpuSeconds - before.cpuSeconds) / seconds / Math.max(1, now.concurrency);
  const failed = rate('failed');
  return {
    seconds,
    refused: rate('refused'),
    arrivals: rate('opened'),
    opened: rate('openedTls'),
    failed,
    unfinished: Math.max(0, rate('openedTls') - rate('handshakes') - failed),
    ...(busy !== undefined && { busy }),
    ...now.interval,
  };
}

/** Of a moment too short to say anything: nothing. */
const SHORT_MS = 100;

/**
 * What is usual, from two readings of the old epoch: one from the start of the upgrade, one from the start of its
 * drain; between them it stopped to accept, `idleMs` ago. What came before counts for nothing: a child of a hot
 * restart has its parents' counters added to its own (envoy-facts, stats), and a day's mean knows no peak hour. Pure.
 */
export function usualBetween(before: Reading | undefined, now: Reading, idleMs: number): Usual {
  const { latencyMs, connectMs } = now.life ?? {};
  const times = { ...(latencyMs !== undefined && { latencyMs }), ...(connectMs !== undefined && { connectMs }) };
  const load = before && loadBetween(before, now);
  if (load === undefined) return times;
  const { seconds, refused = 0, arrivals = 0, failed = 0, unfinished = 0 } = load;
  const accepted = seconds - Math.max(0, idleMs) / 1_000;
  if (accepted * 1_000 < SHORT_MS) return times;
  const part = seconds / accepted;
  return { refused, arrivals: arrivals * part, failed: failed * part, unfinished: unfinished * part, ...times };
}

async function ask(admin: Asked['admin'], filter: string): Promise<string> {
  return admin.get(`/stats?filter=${encodeURIComponent(filter)}`);
}

/** From the text of /stats: `NAME: NUMBER` a line. */
export function countersIn(stats: string): Counters {
  const sums = { refused: 0, opened: 0, openedTls: 0, handshakes: 0, failed: 0 };
  const accepted = new Map<string, number>();
  const tls = new Set<string>();
  for (const line of stats.split('\n')) {
    const colon = line.lastIndexOf(': ');
    const name = line.slice(0, colon);
    if (colon < 0 || name.startsWith('listener.admin.') || /\.worker_\d+\./.test(name)) continue;
    const value = Number(line.slice(colon + 2)) || 0;
    const of = /^listener\.(.*)\.(downstream_cx_total|ssl\.\w+)$/.exec(name);
    if (of === null) sums.refused += value;
    else if (of[2] === 'downstream_cx_total') accepted.set(of[1] as string, value);
    else {
      tls.add(of[1] as string);
      if (of[2] === 'ssl.handshake') sums.handshakes += value;
      else sums.failed += value;
    }
  }
  for (const [listener, value] of accepted) {
    sums.opened += value;
    if (tls.has(listener)) sums.openedTls += value;
  }
  return sums;
}

function timesIn(timed: string, which: 'interval' | 'cumulative'): Times {
  const latencyMs = quantile(timed, which, /\.downstream_rq_time$/);
  const connectMs = quantile(timed, which, /\.upstream_cx_connect_ms$/);
  return { ...(latencyMs !== undefined && { latencyMs }), ...(connectMs !== undefined && { connectMs }) };
}

/** The largest P90 of all stats of that name but the admin's: `http.NAME.downstream_rq_time: ... P90(interval,all)`. */
export function quantile(stats: string, which: 'interval' | 'cumulative', names: RegExp): number | undefined {
  let largest: number | undefined;
  for (const line of stats.split('\n')) {
    const name = line.slice(0, Math.max(0, line.indexOf(': ')));
    if (name.startsWith('http.admin.') || !names.test(name)) continue;
    const found = / P90\(([^,]+),([^)]+)\)/.exec(line);
    const value = Number(which === 'interval' ? found?.[1] : found?.[2]);
    if (found && Number.isFinite(value)) largest = Math.max(largest ?? 0, value);
  }
  return largest;
}

function cpuSeconds(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name may hold spaces and parentheses: fields count from the last one. utime and stime are fields 14 and 15.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  } catch {
    return undefined;
  }
}
