import { readFileSync } from 'node:fs';
import { until } from '../harness/process.ts';

/** A process that has ended stays in the table until its parent looks, and that may take seconds: it does not run. */
function running(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat[stat.lastIndexOf(')') + 2] !== 'Z';
  } catch {
    return false;
  }
}

/** Epoch ms of a process's end. @throws Error when it has not ended within the bound */
export function processEnd(pid: number, limitMs: number): Promise<number> {
  return until(`process ${pid} ends`, () => (running(pid) ? undefined : Date.now()), { limitMs, everyMs: 10 });
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}
