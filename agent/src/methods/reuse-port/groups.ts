import { SluiceError } from '@sluice/contract';
import { type KeptSocket, KeptSockets, syncKept } from '../../broker/index.ts';
import type { Epoch } from '../../epochs/epoch.ts';
import { close } from '../../native/fds.ts';
import { listenFds } from '../../native/listeners.ts';
import { gracePeriod, hide, steer, unsteer, waiting } from '../../native/reuseport.ts';
import { TCP_LISTEN, tcpTable } from '../../native/tcp-table.ts';
import { removalSteps, toFresh, toOld } from './steps.ts';

const TCP = 'tcp://';
/** SYN_RECV, as /proc calls it, and NEW_SYN_RECV, as the kernel keeps it: a handshake that the client has to end. */
const HANDSHAKE = [3, 12];

/** The sockets of one address of the old epoch; all of them are in one group. */
interface Group {
  /** As Envoy writes it without its scheme: `127.0.0.1:80`. */
  readonly address: string;
  readonly inodes: ReadonlySet<number>;
  /** Dups, one of each socket. */
  readonly fds: number[];
  /** Sockets of the new epoch in it. */
  fresh: number;
  /** A dup of one of those: the group can be reached when the old ones have left. */
  freshFd: number | undefined;
}

/**
 * The listen sockets of an epoch that is to stop accepting, in our hands: each dup keeps its socket in its group when Envoy
 * closes it, so that the order of the group is ours to know until the end.
 */
export class ListenGroups {
  readonly #pid: number;
  readonly #groups: Group[];

  private constructor(pid: number, groups: Group[]) {
    this.#pid = pid;
    this.#groups = groups;
  }

  /** Throws PREFLIGHT_LISTENER for a socket that can not be shared, and where the sockets can not be had. */
  static async of(epoch: Epoch): Promise<ListenGroups> {
    const groups = new Map<string, Group & { inodes: Set<number> }>();
    const taking = eachListenSocket(epoch, (socket, take) => {
      if (!socket.address.startsWith(TCP) || socket.shared) {
        throw new SluiceError('PREFLIGHT_LISTENER', `expected TCP listeners with reuse_port, found ${socket.address}`);
      }
      const address = socket.address.slice(TCP.length);
      const group = groups.get(address) ?? { address, inodes: new Set(), fds: [], fresh: 0, freshFd: undefined };
      groups.set(address, group);
      group.inodes.add(socket.inode);
      group.fds.push(take());
    });
    await taking.catch((error: unknown) => {
      for (const { fds } of groups.values()) for (const fd of fds) close(fd);
      throw error;
    });
    return new ListenGroups(epoch.process.pid, [...groups.values()]);
  }

  /** New connections go to the old epoch alone, whoever else begins to listen. Throws LISTENERS_CHANGED. */
  hold(): void {
    for (const group of this.#groups) {
      const strangers = this.#members(group.address).filter((inode) => !group.inodes.has(inode));
      if (strangers.length > 0) {
        throw new SluiceError(
          'LISTENERS_CHANGED',
          `expected one Envoy on ${group.address}, found ${strangers.length} more sockets that listen there`,
        );
      }
    }
    this.#steerToOld();
  }

  /**
   * Finds the new epoch's sockets in the groups. Throws LISTENERS_CHANGED when an order can not be relied on: listeners of
   * the old epoch came or went, or somebody else listens there. Returns the addresses on which the new one does not listen.
   */
  async join(epoch: Epoch): Promise<string[]> {
    const fresh = new Map<string, Set<number>>();
    await eachListenSocket(epoch, (socket, take) => {
      const address = socket.address.slice(TCP.length);
      fresh.set(address, (fresh.get(address) ?? new Set()).add(socket.inode));
      const group = this.#groups.find((each) => each.address === address);
      if (group && group.freshFd === undefined) group.freshFd = take();
    });
    for (const group of this.#groups) {
      const members = this.#members(group.address);
      const inodes = fresh.get(group.address) ?? new Set();
      const gone = [...group.inodes].filter((inode) => !members.includes(inode));
      const strangers = members.filter((inode) => !group.inodes.has(inode) && !inodes.has(inode));
      if (gone.length + strangers.length > 0) throw changed(group.address);
      group.fresh = inodes.size;
    }
    for (const address of listening(this.#pid).keys()) {
      if (fresh.has(address) && !this.#groups.some((group) => group.address === address)) throw changed(address);
    }
    return this.#groups.filter((group) => group.fresh === 0).map(({ address }) => address);
  }

  /** From here on new connections go to the new epoch. */
  async flip(): Promise<void> {
    for (const { fds, fresh } of this.#groups) {
      if (fresh > 0) steer(fds[0] as number, toFresh({ old: fds.length, fresh }));
    }
    await gracePeriod();
  }

  /** Back to the old epoch. */
  async flipBack(): Promise<void> {
    this.#steerToOld();
    await gracePeriod();
  }

  /** Handshakes that were begun at these addresses; a new one is not told from an old one's. */
  handshakes(): Set<string> {
    const ports = [...new Set(this.#groups.map(({ address }) => Number(address.slice(address.lastIndexOf(':') + 1))))];
    if (ports.length === 0) return new Set();
    return new Set(tcpTable(this.#pid, { states: HANDSHAKE, ports }).map(({ local, peer }) => `${local} ${peer}`));
  }

  /** Connections in the accept queues of the old epoch, where the new one listens too. */
  waiting(): number {
    const served = this.#groups.filter(({ fresh }) => fresh > 0);
    return served.flatMap(({ fds }) => fds).reduce((sum, fd) => sum + waiting(fd), 0);
  }

  /** Does the old Envoy itself still hold one of these sockets? */
  heldByOld(): boolean {
    const held = listening(this.#pid);
    return this.#groups.some(({ address, inodes }) =>
      [...(held.get(address) ?? [])].some((inode) => inodes.has(inode)),
    );
  }

  /** Takes the old sockets out of their groups one by one, with no connection falling to one that is about to leave. */
  async remove(): Promise<void> {
    for (const { fds } of this.#groups) for (const fd of fds) hide(fd);
    const steps = this.#groups.map(({ fds, fresh }) => removalSteps({ old: fds.length, fresh }));
    for (let i = 0; i < Math.max(0, ...steps.map((each) => each.length)); i++) {
      for (const [g, { fds, fresh }] of this.#groups.entries()) {
        const program = steps[g]?.[i];
        if (fds[0] !== undefined && program && fresh > 0) steer(fds[0], program);
      }
      await gracePeriod();
      for (const { fds } of this.#groups) {
        const fd = fds.shift();
        if (fd !== undefined) close(fd);
      }
    }
  }

  /** The kernel's own choice again, and no dup any more. Safe to repeat. */
  release(): void {
    for (const group of this.#groups) {
      const fds = [...group.fds.splice(0), ...(group.freshFd === undefined ? [] : [group.freshFd])];
      group.freshFd = undefined;
      if (fds[0] !== undefined) unsteer(fds[0]);
      for (const fd of fds) close(fd);
    }
  }

  #steerToOld(): void {
    for (const { fds, fresh } of this.#groups) steer(fds[0] as number, toOld({ old: fds.length, fresh }));
  }

  /** Inodes of all sockets that listen on an address, whose ever they are. */
  #members(address: string): number[] {
    const port = Number(address.slice(address.lastIndexOf(':') + 1));
    const sockets = tcpTable(this.#pid, { states: [TCP_LISTEN], ports: [port] });
    return sockets.filter(({ local }) => local === address).map(({ inode }) => inode);
  }
}

function changed(address: string): SluiceError {
  return new SluiceError(
    'LISTENERS_CHANGED',
    `expected the listeners to stay as they are, found others than before on ${address}`,
  );
}

/** `take` gives a dup that the caller owns. */
async function eachListenSocket(epoch: Epoch, use: (socket: KeptSocket, take: () => number) => void): Promise<void> {
  const sockets = new KeptSockets();
  const { baseId, hotRestart, adminAddress } = epoch.meta;
  try {
    await syncKept(sockets, {
      baseId,
      envoy: epoch.party,
      exclude: [adminAddress.startsWith('/') ? `unix://${adminAddress}` : `${TCP}${adminAddress}`],
      method: hotRestart === false ? 'pidfd' : 'auto',
    });
    for (const socket of sockets.list()) use(socket, () => sockets.take(socket) as number);
  } finally {
    sockets.closeAll();
  }
}

/** TCP sockets that a process listens on, by address; none of a process that is gone. */
function listening(pid: number): Map<string, Set<number>> {
  const found = new Map<string, Set<number>>();
  try {
    for (const { address, inode } of listenFds(pid)) {
      if (!address.startsWith(TCP)) continue;
      const key = address.slice(TCP.length);
      found.set(key, (found.get(key) ?? new Set()).add(inode));
    }
  } catch {
    // Gone.
  }
  return found;
}
