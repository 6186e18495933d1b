import { untilEnded } from '@sluice/agent/native/process-end';

/**
 * Epoch ms of a process's end: told by the kernel, for looking again and again would be a load of its own. @throws Error when
 * it has not ended within the bound
 */
export async function processEnd(pid: number, limitMs: number): Promise<number> {
  if (!(await untilEnded(pid, limitMs))) throw new Error(`process ${pid} has not ended after ${limitMs} ms`);
  return Date.now();
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}
