import { execFile } from 'node:child_process';
import { runIdle } from '../native/sched.ts';

export interface AsideOptions {
  /** Of the second try; after it the promise rejects with `killed`. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** So long it may wait for a core that nobody wants; on one that is never idle it would wait for ever. */
const IDLE_MS = 3_000;
const MAX_OUTPUT = 1024 * 1024;

/**
 * Runs a binary to learn something of it, and the Envoy that serves beside it does not feel it: only in what that leaves
 * of the cores. Where it leaves nothing, the same is run again as an equal. Rejects as execFile does.
 */
export async function runAside(
  binary: string,
  args: readonly string[],
  { timeoutMs, signal }: AsideOptions,
): Promise<{ readonly stdout: string; readonly stderr: string }> {
  try {
    return await run(binary, args, { timeoutMs: IDLE_MS, signal, idle: true });
  } catch (error) {
    if ((error as { killed?: boolean }).killed !== true || signal?.aborted === true) throw error;
    return run(binary, args, { timeoutMs, signal, idle: false });
  }
}

function run(
  binary: string,
  args: readonly string[],
  { timeoutMs, signal, idle }: { timeoutMs: number; signal: AbortSignal | undefined; idle: boolean },
): Promise<{ stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    const options = { timeout: timeoutMs, maxBuffer: MAX_OUTPUT, ...(signal && { signal }) };
    const child = execFile(binary, args, options, (error, stdout, stderr) => {
      if (error) reject(Object.assign(error, { stdout, stderr }));
      else resolve({ stdout, stderr });
    });
    if (idle && child.pid !== undefined) runIdle(child.pid);
  });
}
