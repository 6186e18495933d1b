import { close, dup, hasReusePort, inode } from '../native/fds.ts';
import type { ListenSocketRequest } from './wire.ts';

export interface KeptSocket extends ListenSocketRequest {
  readonly inode: number;
  /** One socket for all workers (the listener has no reuse_port): it answers whatever worker is asked for. */
  readonly shared: boolean;
}

interface Entry extends KeptSocket {
  readonly fd: number;
}

/** The key under which PassListenSocket will ask: the address in one spelling, the worker, the network namespace. */
export function socketKey(request: ListenSocketRequest, worker = request.worker): string {
  return `${canonical(request.address)} ${worker} ${request.networkNamespace ?? ''}`;
}

/** IPv6 has many spellings of one address; URL has one. What it does not understand stays as it is. */
function canonical(address: string): string {
  if (!address.includes('[')) return address;
  try {
    const { protocol, host } = new URL(address);
    return `${protocol}//${host}`;
  } catch {
    return address;
  }
}

/**
 * Dups of the listen sockets of the serving Envoy. While a dup is open its socket goes on listening without Envoy: a
 * connection waits in the backlog and is not refused, and the next Envoy takes the socket over. The other side of it:
 * a dup that no Envoy serves lets clients hang and, in a reuse_port group, takes its share of the connections. So the
 * set must be what the serving Envoy holds (`replaceAll`, `retain`), and nothing else.
 */
export class KeptSockets {
  readonly #entries = new Map<string, Entry>();

  get size(): number {
    return this.#entries.size;
  }

  list(): readonly KeptSocket[] {
    return [...this.#entries.values()].map(({ fd: _, ...socket }) => socket);
  }

  /** Keeps a dup; the given descriptor stays the caller's. */
  put(request: ListenSocketRequest, fd: number): void {
    this.#take(request, dup(fd));
  }

  /** Makes the set these sockets; takes the descriptors over. A socket that was kept already (same inode) stays. */
  replaceAll(sockets: readonly { request: ListenSocketRequest; fd: number }[]): { added: number; removed: number } {
    const keys = new Set(sockets.map(({ request }) => socketKey(request)));
    const removed = this.retain((request) => keys.has(socketKey(request)));
    const before = new Set([...this.#entries.values()].map((entry) => entry.inode));
    for (const { request, fd } of sockets) this.#take(request, fd);
    const added = [...this.#entries.values()].filter((entry) => !before.has(entry.inode)).length;
    return { added, removed };
  }

  /** A dup of the kept socket for whoever asks, or undefined; the receiver closes it. */
  take(request: ListenSocketRequest): number | undefined {
    const first = this.#entries.get(socketKey(request, 0));
    const entry = this.#entries.get(socketKey(request)) ?? (first?.shared ? first : undefined);
    return entry === undefined ? undefined : dup(entry.fd);
  }

  /** Closes what `wanted` does not name. */
  retain(wanted: (request: ListenSocketRequest) => boolean): number {
    let removed = 0;
    for (const [key, entry] of this.#entries) {
      if (wanted(entry)) continue;
      this.#entries.delete(key);
      close(entry.fd);
      removed++;
    }
    return removed;
  }

  closeAll(): void {
    this.retain(() => false);
  }

  #take(request: ListenSocketRequest, fd: number): void {
    const key = socketKey(request);
    const old = this.#entries.get(key);
    const { address, worker, networkNamespace } = request;
    const found = inode(fd);
    if (old !== undefined && old.inode === found) {
      close(fd);
      return;
    }
    const shared = !hasReusePort(fd);
    const namespace = networkNamespace ? { networkNamespace } : {};
    this.#entries.set(key, { address, worker, ...namespace, inode: found, shared, fd });
    if (old !== undefined) close(old.fd);
  }
}
