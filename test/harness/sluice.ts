import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../cli/src/main.ts', import.meta.url));
const LIMIT_MS = 60_000;

export interface CommandResult {
  readonly exit: number;
  readonly out: string;
  readonly err: string;
}

/** Runs the sluice command as a user does, as a process, with this controller. */
export function sluice(controller: string, ...args: readonly string[]): Promise<CommandResult> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      ['--conditions=sluice-source', MAIN, ...args],
      { env: { ...process.env, SLUICE_CONTROLLER: controller }, timeout: LIMIT_MS, maxBuffer: 64 * 1024 * 1024 },
      (error, out, err) => {
        const code = error === null ? 0 : error.code;
        resolve({ exit: typeof code === 'number' ? code : -1, out, err });
      },
    );
  });
}
