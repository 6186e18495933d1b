import type { ProcessId } from '../../epochs/proc.ts';
import { close, pidfdGetfd, pidfdOpen } from '../../native/fds.ts';
import { libc } from '../../native/libc.ts';
import { bindListen } from '../../native/listen-socket.ts';
import { listenFds } from '../../native/listeners.ts';
import type { Listener } from '../give.ts';
import { type Taking, takeWhenFree } from '../take.ts';
import type { NamedFd } from './launch.ts';

const TAKE_BOUND_MS = 30_000;
const SHUT_RD = 0;

/** The listen sockets of one proxy, held for as long as it may be started again: none of them closes with a process. */
export class HeldSockets {
  readonly #held: readonly (Listener & NamedFd)[];
  #closed = false;

  private constructor(held: readonly (Listener & NamedFd)[]) {
    this.#held = held;
  }

  /** Before the first epoch. */
  static none(): HeldSockets {
    return new HeldSockets([]);
  }

  /**
   * From whoever offers them at `socket`, or out of `living` ones of ours, which drain while their master holds the sockets
   * still; the rest bound anew. `taking`: to be told when this side accepts, or that it can not. Throws EADDRINUSE and
   * what a transfer throws.
   */
  static async open(
    listen: Readonly<Record<string, string>>,
    socket: string | undefined,
    living: readonly ProcessId[] = [],
  ): Promise<{ sockets: HeldSockets; taking: Taking | undefined }> {
    const wanted = new Set(Object.values(listen));
    const taking =
      socket === undefined
        ? undefined
        : await takeWhenFree(socket, { wanted: (address) => wanted.has(address), boundMs: TAKE_BOUND_MS });
    const held: (Listener & NamedFd)[] = [];
    const received = [...(taking?.listeners ?? [])];
    try {
      for (const [name, address] of Object.entries(listen)) {
        const at = received.findIndex((one) => one.address === address);
        const [found] = at < 0 ? [] : received.splice(at, 1);
        held.push({ name, address, fd: found?.fd ?? heldBy(living, address) ?? bindListen(address) });
      }
      for (const { fd } of received) close(fd);
      return { sockets: new HeldSockets(held), taking };
    } catch (thrown) {
      for (const { fd } of [...held, ...received]) close(fd);
      taking?.abandon({ code: 'LISTEN_FD_BROKEN', message: (thrown as Error).message });
      throw thrown;
    }
  }

  /** Out of a running proxy that an earlier agent started; needs the right to ptrace it, which its own user has. */
  static adopt(listen: Readonly<Record<string, string>>, from: ProcessId): HeldSockets {
    const held: (Listener & NamedFd)[] = [];
    try {
      for (const [name, address] of Object.entries(listen)) {
        held.push({ name, address, fd: heldBy([from], address) ?? bindListen(address) });
      }
      return new HeldSockets(held);
    } catch (thrown) {
      for (const { fd } of held) close(fd);
      throw thrown;
    }
  }

  get list(): readonly (Listener & NamedFd)[] {
    return this.#closed ? [] : this.#held;
  }

  get addresses(): string[] {
    return this.#held.map(({ address }) => address);
  }

  /** They belong to somebody else now. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { fd } of this.#held) close(fd);
  }

  /**
   * Nobody is to serve on them any more: new connections are refused from now on. Closing alone would not do, because a
   * master may keep its own descriptor open and let clients wait in a queue that nobody empties.
   */
  refuse(): void {
    if (!this.#closed) for (const { fd } of this.#held) libc().shutdown(fd, SHUT_RD);
    this.close();
  }
}

/** The listen socket of that address out of the first of these processes that has it. */
function heldBy(processes: readonly ProcessId[], address: string): number | undefined {
  for (const { pid } of processes) {
    const pidfd = pidfdOpen(pid);
    if (pidfd === undefined) continue;
    try {
      const found = listenFds(pid).find((one) => one.address === `tcp://${address}`);
      if (found) return pidfdGetfd(pidfd, found.fd);
    } finally {
      close(pidfd);
    }
  }
  return undefined;
}
