import { statSync } from 'node:fs';
import { listenFds } from '../native/listeners.ts';
import { heldSockets } from '../native/proc-fd.ts';
import { TCP_LISTEN, type TcpSocket, tableLines, tcpTable } from '../native/tcp-table.ts';

/**
 * States in which a socket is a connection that Envoy has not ended: ESTABLISHED, FIN_WAIT1 (response on its way),
 * FIN_WAIT2, CLOSE_WAIT (the client half-closed), LAST_ACK, CLOSING. All the same only sockets that Envoy still holds a
 * descriptor of are counted.
 */
const OPEN_STATES = [1, 4, 5, 8, 9, 11];

export interface KernelSocket {
  readonly inode: number;
  /** `127.0.0.1:10000`, IPv6 in brackets; a Unix socket's path. */
  readonly local: string;
  /** Empty for a Unix socket: the kernel does not say. */
  readonly peer: string;
  /** Its client has not taken all that was written to it. false for a Unix socket: the kernel does not say. */
  readonly unsent: boolean;
}

export interface KernelView {
  readonly open: number;
  readonly sockets: readonly KernelSocket[];
  /** It listens on one of the addresses still. */
  readonly listens: boolean;
}

/**
 * Addresses that a live process listens on: `127.0.0.1:10000`, `[::]:10000`, or the path of a Unix socket. Throws when they
 * can not be read.
 */
export function readListenAddresses(pid: number): string[] {
  return [...new Set(listenFds(pid).map(({ address }) => address.replace(/^(tcp|unix):\/\//, '')))];
}

/** The same; none where they can not be read. */
export function listenAddressesOf(pid: number): string[] {
  try {
    return readListenAddresses(pid);
  } catch {
    return [];
  }
}

/**
 * The downstream connections of a process as the kernel sees them: sockets among its descriptors whose local address is
 * one of `listenAddresses` (as it was while it listened; a wildcard address matches by port). Behind REDIRECT the local
 * address is the listener's. Throws when the process is gone. Unix-socket connections carry the listener's path.
 */
export function readKernel(pid: number, listenAddresses: readonly string[]): KernelView {
  return new KernelWitness(pid, listenAddresses).read();
}

/**
 * The same for many looks at one process. Reading which descriptors it holds is the dear part (9,500 sockets: 80 ms), and
 * one that listens no more gains none: from then on the sockets found are only looked up again. A socket with no holder
 * has inode 0 in the kernel's tables, so one that still bears its number is still held.
 */
export class KernelWitness {
  readonly #pid: number;
  readonly #unixPaths: ReadonlySet<string>;
  readonly #tcpAddresses: readonly string[];
  /** All the downstream sockets that it can still have, once it can gain no more. */
  #known: ReadonlySet<number> | undefined;
  #listened = true;

  constructor(pid: number, listenAddresses: readonly string[]) {
    this.#pid = pid;
    this.#unixPaths = new Set(listenAddresses.filter(isPath));
    this.#tcpAddresses = listenAddresses.filter((a) => !isPath(a));
  }

  /** Throws when the process is gone. */
  read(): KernelView {
    if (this.#known !== undefined) {
      statSync(`/proc/${this.#pid}`);
      const view = viewOf(this.#heldAmong(this.#known));
      // "None left" is never said from memory.
      if (view.open > 0) return view;
    }
    return this.#readAnew();
  }

  #readAnew(): KernelView {
    const held = this.#heldAmong(heldSockets(this.#pid));
    const view = viewOf(held);
    const { listens } = view;
    // The look that first finds no listener may have missed a socket accepted while it read: the one after can not.
    this.#known = listens || this.#listened ? undefined : new Set(view.sockets.map(({ inode }) => inode));
    this.#listened = listens;
    return view;
  }

  #heldAmong(inodes: ReadonlySet<number>): TcpSocket[] {
    return [...this.#tcp(), ...this.#unix()].filter(({ inode }) => inodes.has(inode));
  }

  #tcp(): TcpSocket[] {
    if (this.#tcpAddresses.length === 0) return [];
    const accepts = addressMatcher(this.#tcpAddresses);
    const ports = [...new Set(this.#tcpAddresses.map((address) => Number(portOf(address))))];
    const ipv6 = this.#tcpAddresses.some((address) => address.startsWith('['));
    const ipv4 = this.#tcpAddresses.some((address) => !address.startsWith('['));
    const families = [...(ipv4 ? (['ipv4'] as const) : []), ...(ipv6 ? (['ipv6'] as const) : [])];
    const query = { states: [...OPEN_STATES, TCP_LISTEN], ports, families };
    return tcpTable(this.#pid, query).filter(({ local }) => accepts(local));
  }

  #unix(): TcpSocket[] {
    if (this.#unixPaths.size === 0) return [];
    const sockets: TcpSocket[] = [];
    for (const line of tableLines(`/proc/${this.#pid}/net/unix`)) {
      // Num RefCount Protocol Flags Type St Inode Path; St 03 = connected. An accepted socket carries the listener's path.
      const [, , , flags, , state, inode, ...path] = line.trim().split(/\s+/);
      const local = path.join(' ');
      if (!this.#unixPaths.has(local)) continue;
      const listens = (Number.parseInt(flags ?? '0', 16) & UNIX_ACCEPTS) !== 0;
      if (listens || state === '03')
        sockets.push({ inode: Number(inode), state: listens ? TCP_LISTEN : 1, local, peer: '', unsent: false });
    }
    return sockets;
  }
}

const UNIX_ACCEPTS = 0x10000;

function isPath(address: string): boolean {
  return address.startsWith('/') || address.startsWith('@');
}

function viewOf(held: readonly TcpSocket[]): KernelView {
  const open = held.filter(({ state }) => state !== TCP_LISTEN);
  const sockets = open.map(({ inode, local, peer, unsent }) => ({ inode, local, peer, unsent }));
  return { open: open.length, sockets, listens: open.length < held.length };
}

/** A listener on a wildcard address accepts on each local address; a socket accepted by `[::]` may show a mapped IPv4. */
function addressMatcher(listenAddresses: readonly string[]): (local: string) => boolean {
  const exact = new Set(listenAddresses);
  const wildcardPorts = new Set(listenAddresses.filter((a) => /^(0\.0\.0\.0|\[::\]|\[::0\]):\d+$/.test(a)).map(portOf));
  return (local) => exact.has(local) || wildcardPorts.has(portOf(local));
}

function portOf(address: string): string {
  return address.slice(address.lastIndexOf(':') + 1);
}
