import { readFileSync } from 'node:fs';
import type { Load } from './adapt.ts';

interface Asked {
  readonly pid: number;
  readonly concurrency: number;
  readonly admin: { get(path: string): Promise<string> };
}

const COUNTERS =
  '^listener\\..*downstream_cx_overflow$|^cluster\\..*(upstream_cx_overflow|upstream_rq_pending_overflow|upstream_cx_connect_fail)$';
const LATENCY = '^http\\..*downstream_rq_time$';
/** Linux counts CPU time in hundredths of a second for user space, whatever the kernel's own tick. */
const TICKS_PER_SECOND = 100;

/** Watches what an epoch bears, between one look and the next. A stat that is not there says nothing. */
export class LoadWatch {
  readonly #epoch: Asked;
  readonly #usualMs: number | undefined;
  #cpu: { readonly at: number; readonly seconds: number } | undefined;

  /** `usualMs`: what nine of ten requests stayed within before the drain; see usualLatency. */
  constructor(epoch: Asked, usualMs: number | undefined) {
    this.#epoch = epoch;
    this.#usualMs = usualMs;
  }

  async look(now: number): Promise<Load> {
    const busy = this.#busy(now);
    const { admin } = this.#epoch;
    const [counters, times] = await Promise.all([ask(admin, COUNTERS), ask(admin, LATENCY)]);
    const latencyMs = quantile(times, 'interval');
    return {
      ...(busy !== undefined && { busy }),
      refused: sum(counters, /overflow|connect_fail/),
      ...(latencyMs !== undefined && { latencyMs }),
      ...(this.#usualMs !== undefined && { usualMs: this.#usualMs }),
    };
  }

  #busy(now: number): number | undefined {
    const seconds = cpuSeconds(this.#epoch.pid);
    const before = this.#cpu;
    this.#cpu = seconds === undefined ? undefined : { at: now, seconds };
    if (seconds === undefined || before === undefined || now <= before.at) return undefined;
    return (seconds - before.seconds) / ((now - before.at) / 1_000) / Math.max(1, this.#epoch.concurrency);
  }
}

/** What nine of ten requests of an epoch took at most, over its life; undefined: it has not said. */
export async function usualLatency(admin: Asked['admin']): Promise<number | undefined> {
  return quantile(await ask(admin, LATENCY), 'cumulative');
}

async function ask(admin: Asked['admin'], filter: string): Promise<string> {
  return admin.get(`/stats?filter=${encodeURIComponent(filter)}`);
}

function sum(stats: string, name: RegExp): number {
  let total = 0;
  for (const line of stats.split('\n')) {
    const colon = line.lastIndexOf(': ');
    if (colon > 0 && name.test(line.slice(0, colon))) total += Number(line.slice(colon + 2)) || 0;
  }
  return total;
}

/** The largest P90 of all connection managers, as text says it: `http.NAME.downstream_rq_time: ... P90(interval,all)`. */
export function quantile(stats: string, which: 'interval' | 'cumulative'): number | undefined {
  let largest: number | undefined;
  for (const line of stats.split('\n')) {
    if (line.startsWith('http.admin.')) continue;
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
