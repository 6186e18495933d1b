import { readFileSync } from 'node:fs';

/** The kernel counts in ticks of 10 ms. */
const LOOK_MS = 50;
const LEAST_PART = 0.05;

/** Something of the cores is left for one that gives way. Looks for 50 ms, and blocks for them; true where that can not be seen. */
export function coresIdle(): boolean {
  const before = times();
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOOK_MS);
  const after = times();
  if (before === undefined || after === undefined || after.all === before.all) return true;
  return (after.idle - before.idle) / (after.all - before.all) >= LEAST_PART;
}

/** proc_stat(5): user nice system idle iowait irq softirq steal, in ticks since the start; the guests' are in user's. */
function times(): { readonly idle: number; readonly all: number } | undefined {
  try {
    const ticks = readFileSync('/proc/stat', 'latin1').split('\n', 1)[0]?.trim().split(/\s+/).slice(1, 9).map(Number);
    const [, , , idle = 0, waiting = 0] = ticks ?? [];
    return { idle: idle + waiting, all: (ticks ?? []).reduce((sum, each) => sum + each, 0) };
  } catch {
    return undefined;
  }
}
