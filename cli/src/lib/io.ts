import { basename } from 'node:path';
import type { Writable } from 'node:stream';

/** Everything of the process that a command may use, so that a test can give its own. */
export interface Io {
  readonly out: Writable & { readonly isTTY?: boolean; readonly columns?: number; readonly rows?: number };
  readonly err: Writable;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Ends on SIGINT and SIGTERM of a command that asks for it by `interruptible`. */
  readonly interrupted: () => AbortSignal;
  readonly programName: string;
}

export function processIo(): Io {
  // A reader that left (`sluice get | head`) is no failure.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
    });
  }
  return {
    out: process.stdout,
    err: process.stderr,
    env: process.env,
    interrupted: () => {
      const controller = new AbortController();
      for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => controller.abort(signal));
      return controller.signal;
    },
    // Found on PATH as kubectl-sluice it is kubectl's plugin `sluice`.
    programName: basename(process.argv[1] ?? '').startsWith('kubectl-sluice') ? 'kubectl sluice' : 'sluice',
  };
}

export function print(io: Io, text: string): void {
  io.out.write(text.endsWith('\n') ? text : `${text}\n`);
}
