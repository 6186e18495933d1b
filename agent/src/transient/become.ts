import { constants, openSync } from 'node:fs';
import type { Launch } from '../epochs/launch.ts';
import { setBlocking, setInherited } from '../native/fds.ts';
import { libc, must } from '../native/libc.ts';

const SIGCHLD = 17;
const SIG_IGN = 1;

/**
 * Makes this process the given Envoy: the same pid, the same parent, the same standard streams, none of Node's memory.
 * Returns only by throwing what execve failed with; the process is unharmed then.
 *
 * What Envoy inherits is chosen: the FIFO by whose end its death is seen, standard streams in blocking mode (libuv has
 * made them non-blocking, and Envoy would lose log lines), and an ignored SIGCHLD, so that the helper leaves no zombie.
 */
export function becomeEnvoy({ binary, args, alive, cwd, env = process.env }: Launch): never {
  process.chdir(cwd);
  // Both directions: opening a FIFO so never waits.
  setInherited(openSync(alive, constants.O_RDWR), true);
  for (const stream of [0, 1, 2]) setBlocking(stream);
  const native = libc();
  native.signal(SIGCHLD, SIG_IGN);
  const variables = Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
  must('execve', native.execve(binary, [binary, ...args, null], [...variables, null]));
  throw new Error('execve returned without an error');
}
