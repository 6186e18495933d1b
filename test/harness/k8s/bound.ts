import { type Child, type StartOptions, start } from '../process.ts';

/** Before a command: the kernel kills it when its parent dies, also by SIGKILL. */
export const BOUND: readonly string[] = ['setpriv', '--pdeathsig', 'KILL', '--'];

/** As `start`, for what must not be left behind however the test ends. */
export function startBound(command: string, args: readonly string[], options: StartOptions = {}): Promise<Child> {
  const [setpriv = '', ...rest] = BOUND;
  return start(setpriv, [...rest, command, ...args], { name: command, ...options });
}
