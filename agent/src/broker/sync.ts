import { SluiceError } from '@sluice/contract';
import { close, isListening, pidfdGetfd, pidfdOpen } from '../native/fds.ts';
import { isSystemError } from '../native/libc.ts';
import { type ListenFd, listenFds } from '../native/listeners.ts';
import { askListenSockets } from './ask.ts';
import type { KeptSockets } from './kept.ts';
import type { Party } from './types.ts';
import type { ListenSocketRequest } from './wire.ts';

export interface SyncOptions {
  readonly baseId: number;
  readonly envoy: Party & { readonly pid: number };
  /** Sockets of Envoy that no child asks for, in Envoy's form: the admin address, `tcp://127.0.0.1:9901`. */
  readonly exclude?: readonly string[];
  readonly signal?: AbortSignal;
  /** `auto`: pidfd, and asking where that is not permitted. */
  readonly method?: 'auto' | 'pidfd' | 'ask';
  /** Longest wait for each answer of an Envoy that is asked. Default 5,000 ms. */
  readonly timeoutMs?: number;
}

export interface SyncResult {
  readonly method: 'pidfd' | 'ask';
  readonly kept: number;
  readonly added: number;
  readonly removed: number;
  /** Why the first method was not used. */
  readonly why?: string;
}

export interface FoundSocket {
  readonly request: ListenSocketRequest;
  /** Owned by whoever gets it. */
  readonly fd: number;
}

/**
 * Makes the kept set exactly what a live Envoy listens on: for its first epoch, and whenever its listeners changed.
 * pidfd_getfd comes first, because Envoy has no part in it. Where ptrace is not permitted (EPERM; Yama's scope 1 and
 * above) Envoy is asked as its hot restart child would ask. Throws when both fail; the set is then as before.
 */
export async function syncKept(kept: KeptSockets, options: SyncOptions): Promise<SyncResult> {
  const { envoy, exclude = [], method = 'auto' } = options;
  const wanted = uniqueSockets(listenFds(envoy.pid)).filter(({ address }) => !exclude.includes(address));
  let why: string | undefined;
  if (method !== 'ask') {
    try {
      return { method: 'pidfd', ...replace(kept, takeByPidfd(envoy.pid, wanted)) };
    } catch (error) {
      if (method === 'pidfd' || !isSystemError(error, 'EPERM', 'ENOSYS')) throw error;
      why = error.message;
    }
  }
  const found = await askListenSockets({ ...options, sockets: wanted });
  return { method: 'ask', ...replace(kept, found), ...(why === undefined ? {} : { why }) };
}

function replace(kept: KeptSockets, found: readonly FoundSocket[]) {
  const { added, removed } = kept.replaceAll(found);
  return { kept: kept.size, added, removed };
}

/** Envoy holds several descriptors of one socket; the lowest of each, ascending. */
function uniqueSockets(sockets: readonly ListenFd[]): ListenFd[] {
  const seen = new Set<number>();
  return sockets.filter(({ inode }) => !seen.has(inode) && seen.add(inode));
}

function takeByPidfd(pid: number, wanted: readonly ListenFd[]): FoundSocket[] {
  const pidfd = pidfdOpen(pid);
  if (pidfd === undefined) throw new SluiceError('EPOCH_DIED', `expected a live Envoy with pid ${pid}, found none`);
  const byAddress = new Map<string, number[]>();
  try {
    for (const { fd, address } of wanted) {
      const copy = takeOne(pidfd, fd);
      if (copy !== undefined) byAddress.set(address, [...(byAddress.get(address) ?? []), copy]);
    }
  } catch (error) {
    for (const fds of byAddress.values()) for (const fd of fds) close(fd);
    throw error;
  } finally {
    close(pidfd);
  }
  // Envoy makes the sockets of an address worker by worker, so that ascending descriptors are ascending workers.
  return [...byAddress].flatMap(([address, fds]) => fds.map((fd, worker) => ({ request: { address, worker }, fd })));
}

/** Undefined: that descriptor was closed, or is something else, since the list was read. */
function takeOne(pidfd: number, fd: number): number | undefined {
  let copy: number;
  try {
    copy = pidfdGetfd(pidfd, fd);
  } catch (error) {
    if (isSystemError(error, 'EBADF')) return undefined;
    throw error;
  }
  if (isListening(copy)) return copy;
  close(copy);
  return undefined;
}
