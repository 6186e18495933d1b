import { spawn } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { launched } from '../../epochs/launch.ts';
import type { ProcessId } from '../../epochs/proc.ts';
import { asOthers } from '../../native/sched.ts';

/**
 * As epochs/launch.ts: started by a shell that ends at once, so that it is nobody's child and outlives this agent. It waits
 * for a line on fd 3, that is until this side knows its pid; fd 4 is the FIFO by whose end its death is seen; the listen
 * sockets follow.
 */
const SCRIPT = `
log=$1; shift
( read -r go <&3 || exit 1; exec 3<&-; exec "$@" </dev/null >>"$log" 2>&1 ) &
echo "$!"
`;
const FIRST_FD = 5;
const CHECK_TIMEOUT_MS = 30_000;

export interface NamedFd {
  readonly name: string;
  readonly fd: number;
}

export interface CommandLaunch {
  readonly binary: string;
  readonly args: readonly string[];
  readonly sockets: readonly NamedFd[];
  readonly env: Readonly<Record<string, string>>;
  readonly alive: string;
  readonly log: string;
  readonly cwd: string;
}

/** Throws EPOCH_DIED when no process came up at all. */
export async function launchCommand(options: CommandLaunch): Promise<ProcessId> {
  // Both directions: opening a FIFO so never waits.
  const alive = openSync(options.alive, constants.O_RDWR);
  const shell = spawn('/bin/sh', ['-c', SCRIPT, 'sh', options.log, options.binary, ...options.args], {
    cwd: options.cwd,
    env: { ...process.env, ...options.env, ...fdNames(options.sockets, FIRST_FD) },
    detached: true,
    stdio: ['ignore', 'pipe', 'inherit', 'pipe', alive, ...options.sockets.map(({ fd }) => fd)],
  });
  closeSync(alive);
  // It may fork what serves, so all that this agent starts with it is as others from the first moment on.
  return launched(shell, options.binary, ({ pid }) => asOthers(pid));
}

function fdNames(sockets: readonly NamedFd[], first: number): Record<string, string> {
  return Object.fromEntries(sockets.map(({ name }, i) => [`FD_${name}`, String(first + i)]));
}

/**
 * Runs the binary to its end with the same sockets inherited: a check of a configuration looks at them. Resolves with its
 * exit code (undefined: it did not end in time, or could not be started) and the end of what it said.
 */
export function runCommand(
  binary: string,
  args: readonly string[],
  options: Pick<CommandLaunch, 'sockets' | 'env' | 'cwd'>,
): Promise<{ readonly code: number | undefined; readonly text: string }> {
  const env = { ...process.env, ...options.env, ...fdNames(options.sockets, 3) };
  return new Promise((resolve) => {
    const child = spawn(binary, args, {
      cwd: options.cwd,
      env,
      stdio: ['ignore', 'pipe', 'pipe', ...options.sockets.map(({ fd }) => fd)],
      timeout: CHECK_TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    let text = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (chunk: string) => {
        text = (text + chunk).slice(-4_000);
      });
    }
    child.once('error', (error) => resolve({ code: undefined, text: error.message }));
    child.once('close', (code) => resolve({ code: code ?? undefined, text: text.trim() }));
  });
}
