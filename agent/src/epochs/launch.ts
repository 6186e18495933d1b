import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { SluiceError } from '@sluice/contract';
import { identify, type ProcessId } from './proc.ts';

/**
 * The child of the intermediate shell waits for a line on fd 3 before it becomes Envoy. Envoy asks for PDEATHSIG at its
 * start (envoy-facts 5; source/exe/main_common.cc), so its parent must have ended *before* that: then it belongs to init
 * and outlives the agent. fd 9 is the FIFO of the epoch, opened for both directions because that never blocks, and before
 * the child exists: a FIFO that no writer has opened yet tells no reader that there is none (fs/pipe.c, pipe_poll).
 */
const SCRIPT = `
alive=$1 log=$2; shift 2
exec 9<>"$alive"
( exec </dev/null; read -r go <&3 || exit 1; exec 3<&-; exec "$@" >>"$log" 2>&1 ) &
echo "$!"
`;

const LAUNCH_TIMEOUT_MS = 5_000;

export interface Launch {
  readonly binary: string;
  readonly args: readonly string[];
  readonly alive: string;
  readonly log: string;
  readonly cwd: string;
  readonly env?: NodeJS.ProcessEnv;
}

/**
 * Starts Envoy detached from this process. `alive` must be a FIFO. Throws EPOCH_DIED when it did not come up at all;
 * that the binary fails later shows on the FIFO. `note` is told of the process before it becomes Envoy: what it writes down
 * is there before Envoy can do anything, and when this process dies first, that one ends.
 */
export async function launch(options: Launch, note: (process: ProcessId) => void = () => {}): Promise<ProcessId> {
  const shell = spawn('/bin/sh', ['-c', SCRIPT, 'sh', options.alive, options.log, options.binary, ...options.args], {
    cwd: options.cwd,
    env: options.env ?? process.env,
    detached: true,
    stdio: ['ignore', 'pipe', 'inherit', 'pipe'],
  });
  return launched(shell, options.binary, note);
}

/** What comes until the first line is whole, or until the end. Rejects with the signal's reason. */
function firstLine(stream: Readable, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    let text = '';
    stream.setEncoding('latin1').on('data', (more: string) => {
      text += more;
      if (text.includes('\n')) resolve(text);
    });
    stream.once('close', () => resolve(text));
  });
}

/**
 * The process whose id `shell` writes and which waits for a line on fd 3. Throws EPOCH_DIED when there is none in time; for
 * `note` see launch.
 */
export async function launched(
  shell: ChildProcess,
  binary: string,
  note: (process: ProcessId) => void = () => {},
): Promise<ProcessId> {
  const gate = shell.stdio[3] as NodeJS.WritableStream;
  gate.on('error', () => {}); // the shell's death is reported by `exit`
  const timeout = AbortSignal.timeout(LAUNCH_TIMEOUT_MS);
  let output: string;
  try {
    // Its exit may be seen before what it wrote; and its pipe ends later, for the waiting child holds it.
    [output] = await Promise.all([
      firstLine(shell.stdout as Readable, timeout),
      once(shell, 'exit', { signal: timeout }),
    ]);
  } catch (cause) {
    shell.kill('SIGKILL');
    gate.end();
    throw new SluiceError('EPOCH_DIED', `expected ${binary} to start, found no process after 5 s`, { cause });
  }
  const pid = Number(output.trim());
  const started = Number.isInteger(pid) && pid > 0 ? identify(pid) : undefined;
  if (started === undefined) {
    gate.end();
    throw new SluiceError('EPOCH_DIED', `expected ${binary} to start, found ${JSON.stringify(output)}`);
  }
  try {
    note(started);
  } catch (error) {
    gate.end(); // without the word it ends
    throw error;
  }
  gate.end('go\n');
  return started;
}
