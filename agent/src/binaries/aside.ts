import { spawn } from 'node:child_process';
import { runIdle } from '../native/sched.ts';

export interface AsideOptions {
  /** Of the second try; after it the promise rejects with `killed`. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** So long it may wait for a core that nobody wants; on one that is never idle it would wait for ever. */
const IDLE_MS = 3_000;
/** After one that waited in vain the next ones do not try. */
const BUSY_MS = 60_000;
const MAX_OUTPUT = 1024 * 1024;

let busyUntil = 0;

/**
 * Tries `work` in what others leave of the cores: `idleMs` is how long it may take then. Where it does not end in time, or where
 * nothing was left a moment ago, it is done as an equal. `work` resolves to undefined when its time is over.
 */
export async function idleFirst<T>(
  work: (idleMs: number | undefined) => Promise<T | undefined>,
): Promise<T | undefined> {
  if (performance.now() >= busyUntil) {
    const done = await work(IDLE_MS);
    if (done !== undefined) return done;
    busyUntil = performance.now() + BUSY_MS;
  }
  return work(undefined);
}

/**
 * Runs a binary to learn something of it, and the Envoy that serves beside it does not feel it: only in what that leaves
 * of the cores. Where it leaves nothing, the same is run again as an equal. Rejects as execFile does: `code`, `killed`, `stdout`, `stderr`.
 */
export async function runAside(
  binary: string,
  args: readonly string[],
  { timeoutMs, signal }: AsideOptions,
): Promise<{ readonly stdout: string; readonly stderr: string }> {
  const done = await idleFirst(async (idleMs) => {
    try {
      return await run(binary, args, { timeoutMs: idleMs ?? timeoutMs, signal, idle: idleMs !== undefined });
    } catch (error) {
      const late = (error as { killed?: boolean }).killed === true && signal?.aborted !== true;
      if (late && idleMs !== undefined) return undefined;
      throw error;
    }
  });
  return done as NonNullable<typeof done>;
}

function run(
  binary: string,
  args: readonly string[],
  { timeoutMs, signal, idle }: { timeoutMs: number; signal: AbortSignal | undefined; idle: boolean },
): Promise<{ stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    // A session of its own: see native/sched.ts.
    const child = spawn(binary, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true, ...(signal && { signal }) });
    if (idle && child.pid !== undefined) runIdle(child.pid);
    let killed = false;
    const timer = setTimeout(() => {
      killed = child.kill('SIGKILL');
    }, timeoutMs);
    const said = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (text: string) => {
        if (said[name].length < MAX_OUTPUT) said[name] += text;
      });
    }
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(Object.assign(error, { killed, ...said }));
    });
    child.once('close', (code) => {
      clearTimeout(timer);
      if (code === 0) resolve(said);
      else reject(Object.assign(new Error(`${binary} ended with ${code}\n${said.stderr}`), { code, killed, ...said }));
    });
  });
}
