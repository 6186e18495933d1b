import { readFileSync } from 'node:fs';
import { untilEnded } from '@sluice/agent/native/process-end';

/** A process that has ended stays in the table until its parent looks, and that may take seconds: it does not run. */
function running(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat[stat.lastIndexOf(')') + 2] !== 'Z';
  } catch {
    return false;
  }
}

/**
 * Epoch ms of a process's end: told by the kernel, for looking again and again would be a load of its own. @throws Error when
 * it has not ended within the bound
 */
export async function processEnd(pid: number, limitMs: number): Promise<number> {
  await untilEnded(pid, limitMs);
  const at = Date.now();
  if (running(pid)) throw new Error(`process ${pid} has not ended after ${limitMs} ms`);
  return at;
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}
