import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Worker } from './clients/worker.ts';

/** Epoch ms, in order of their begin. */
export type Span = readonly [from: number, until: number];

/** Anything else that wants the core waits for it, whatever a side of the bench does. */
const REALTIME = '50';
const TOOL_LIMIT_MS = 5_000;
const run = promisify(execFile);

/**
 * When the machine itself stood still: a virtual one has its cores taken away for some ms at a time, more in one minute than
 * in the next, and what was in flight then says nothing about a proxy. One witness a core, before everything else on it
 * (SCHED_FIFO): only what is outside of the machine can keep it from waking.
 */
export class Stalls {
  /** Why nothing is left out. */
  readonly missing: string | undefined;
  private readonly witnesses: readonly Worker<'report', readonly Span[]>[];

  private constructor(witnesses: readonly Worker<'report', readonly Span[]>[], missing?: string) {
    this.witnesses = witnesses;
    this.missing = missing;
  }

  /** @param cores: their numbers */
  static async start(cores: readonly number[]): Promise<Stalls> {
    const witnesses: Worker<'report', readonly Span[]>[] = [];
    try {
      for (const core of cores) {
        const witness = Worker.start<'report', readonly Span[]>(
          new URL('./clients/stalls-main.ts', import.meta.url),
          {},
        );
        witnesses.push(witness);
        await witness.ask('report'); // its code is loaded: no start goes before everybody else
        const { pid } = witness.child;
        await run('taskset', ['-pc', String(core), String(pid)], { timeout: TOOL_LIMIT_MS });
        await run('chrt', ['--fifo', '-p', REALTIME, String(pid)], { timeout: TOOL_LIMIT_MS });
      }
      return new Stalls(witnesses);
    } catch (error) {
      for (const witness of witnesses) witness.stop();
      const [why] = String((error as Error).message)
        .trim()
        .split('\n')
        .slice(-1);
      return new Stalls([], `expected to run a witness with chrt and taskset (CAP_SYS_NICE), found ${why}`);
    }
  }

  /** Those since the last time, of all cores. */
  async report(): Promise<readonly Span[]> {
    const all = await Promise.all(this.witnesses.map((witness) => witness.ask('report')));
    return all.flat().sort(([a], [b]) => a - b);
  }

  stop(): void {
    for (const witness of this.witnesses) witness.stop();
  }
}

/**
 * Whether something that took from `from` to `until` had part in one of `stalls`; what waited in one is worked off after it,
 * so each counts for twice as long as it was.
 */
export function stalledIn(stalls: readonly Span[]): (from: number, until: number) => boolean {
  const spans: [number, number][] = [];
  for (const [from, until] of stalls) {
    const over = until + (until - from);
    const last = spans.at(-1);
    if (last !== undefined && from <= last[1]) last[1] = Math.max(last[1], over);
    else spans.push([from, over]);
  }
  return (from, until) => {
    // The last one that begins before `until`: none of them meet, so no earlier one ends later.
    let [low, high] = [0, spans.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((spans[middle]?.[0] ?? 0) <= until) low = middle + 1;
      else high = middle;
    }
    return (spans[low - 1]?.[1] ?? Number.NEGATIVE_INFINITY) >= from;
  };
}
