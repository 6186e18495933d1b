import { readFileSync, readlinkSync, statSync } from 'node:fs';
import { type CheckResult, SluiceError } from '@sluice/contract';
import { failed, passed } from './result.ts';

/** What two agents of one proxy must have in common, each as its kernel names it. Undefined: not to be found out. */
export interface Surroundings {
  /** `net:[4026531840]`. */
  readonly net?: string;
  /** Device and inode of /dev/shm: Envoy's shared memory is a file there, so the mount counts and not the IPC namespace. */
  readonly shm?: string;
  readonly uid?: number;
}

export function readSurroundings(): Surroundings {
  const net = attempt(() => readlinkSync('/proc/self/ns/net'));
  const shm = attempt(() => {
    const { dev, ino } = statSync('/dev/shm');
    return `${dev}:${ino}`;
  });
  const uid = process.geteuid?.();
  return { ...(net !== undefined && { net }), ...(shm !== undefined && { shm }), ...(uid !== undefined && { uid }) };
}

function attempt(read: () => string): string | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/**
 * What the second container's agent checks before it touches the Envoy of the first: hot restart goes over abstract Unix
 * sockets (the network namespace) and a shared memory file of mode 0600 (/dev/shm, one user). A fact that either side does
 * not tell is not held against it.
 */
export function sharedChecks(mine: Surroundings, theirs: Surroundings): CheckResult[] {
  return [
    check('network', mine.net, theirs.net, 'PREFLIGHT_NETWORK', 'one network namespace'),
    check('shared memory', mine.shm, theirs.shm, 'PREFLIGHT_SHARED_MEMORY', 'one /dev/shm'),
    check('user', mine.uid, theirs.uid, 'PREFLIGHT_OWNER', 'one user'),
  ];
}

function check(
  name: string,
  mine: string | number | undefined,
  theirs: string | number | undefined,
  code: 'PREFLIGHT_NETWORK' | 'PREFLIGHT_SHARED_MEMORY' | 'PREFLIGHT_OWNER',
  wanted: string,
): CheckResult {
  if (mine === undefined || theirs === undefined || mine === theirs) return passed(name, String(mine ?? 'unknown'));
  const found = `expected ${wanted} for both agents, found ${mine} here and ${theirs} at the peer`;
  return code === 'PREFLIGHT_OWNER'
    ? failed(name, code, found, 'run both containers as the same user')
    : failed(name, code, found);
}

/**
 * Epoch numbers of live Envoys of this base id in our network, by the names of their hot restart sockets. `known` are left
 * out. With some, and no peer in the shared folder, that folder is not shared.
 */
export function strangers(baseId: number, known: readonly number[], table = unixTable()): number[] {
  const found = table.matchAll(new RegExp(`@sluice-${baseId}-(\\d+)_`, 'g'));
  const epochs = new Set([...found].map(([, epoch]) => Number(epoch)));
  return [...epochs].filter((epoch) => !known.includes(epoch)).sort((a, b) => a - b);
}

/** For the agent that finds them. */
export function notShared(baseId: number, shared: string, others: readonly number[]): SluiceError {
  return new SluiceError(
    'PREFLIGHT_SHARED_FOLDER',
    `expected the agent of the Envoy with base id ${baseId} in ${shared}, found none, though its epoch ${others.join(', ')} lives`,
  );
}

function unixTable(): string {
  try {
    return readFileSync('/proc/self/net/unix', 'latin1');
  } catch {
    return '';
  }
}
