import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { listenFds, tcpAddress } from '../native/listeners.ts';
import { sameNetwork, type TcpSocket, tcpSockets } from './sock-diag.ts';

/**
 * States in which a socket is a connection that Envoy has not ended: ESTABLISHED, FIN_WAIT1 (response on its way),
 * FIN_WAIT2, CLOSE_WAIT (the client half-closed), LAST_ACK, CLOSING. All the same only sockets that Envoy still holds a
 * descriptor of are counted.
 */
const OPEN_STATES = [1, 4, 5, 8, 9, 11];
const LISTEN = 10;

export interface KernelSocket {
  readonly inode: number;
  /** `127.0.0.1:10000`, IPv6 in brackets; a Unix socket's path. */
  readonly local: string;
  /** Empty for a Unix socket: the kernel does not say. */
  readonly peer: string;
}

export interface KernelView {
  readonly open: number;
  readonly sockets: readonly KernelSocket[];
}

/** Addresses that a live process listens on: `127.0.0.1:10000`, `[::]:10000`, or the path of a Unix socket. */
export function listenAddressesOf(pid: number): string[] {
  try {
    return [...new Set(listenFds(pid).map(({ address }) => address.replace(/^(tcp|unix):\/\//, '')))];
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
 * one that listens no more gains none: from then on the sockets found last are only looked up again. A socket with no
 * holder has inode 0 in the kernel's tables, so one that still bears its number is still held.
 */
export class KernelWitness {
  readonly #pid: number;
  readonly #unixPaths: ReadonlySet<string>;
  readonly #tcpAddresses: readonly string[];
  /** Whether it listened at the last look at its descriptors. */
  #listened = true;
  /** All its downstream sockets, once it can gain no more. */
  #last: ReadonlySet<number> | undefined;

  constructor(pid: number, listenAddresses: readonly string[]) {
    this.#pid = pid;
    this.#unixPaths = new Set(listenAddresses.filter(isPath));
    this.#tcpAddresses = listenAddresses.filter((a) => !isPath(a));
  }

  /** Throws when the process is gone. */
  read(): KernelView {
    // "None left" is never said from memory.
    const fresh = this.#last === undefined || this.#last.size === 0;
    const held = fresh ? heldSockets(this.#pid) : (this.#last as ReadonlySet<number>);
    if (!fresh) readlinkSync(`/proc/${this.#pid}/ns/net`);
    const tcp = this.#tcp().filter(({ inode }) => held.has(inode));
    const unix = this.#unix().filter(({ inode }) => held.has(inode));
    const open = [...tcp, ...unix].filter(({ state }) => state !== LISTEN);
    const view = { open: open.length, sockets: open.map(({ inode, local, peer }) => ({ inode, local, peer })) };
    const listens = fresh && [...tcp, ...unix].some(({ state }) => state === LISTEN);
    // It may have accepted one and then closed its listener while its descriptors were read: the second such look is whole.
    if (!listens && !this.#listened) this.#last = new Set(open.map(({ inode }) => inode));
    this.#listened = listens;
    if (fresh || view.open > 0) return view;
    return this.read();
  }

  #tcp(): TcpSocket[] {
    if (this.#tcpAddresses.length === 0) return [];
    const accepts = addressMatcher(this.#tcpAddresses);
    const states = [...OPEN_STATES, LISTEN];
    return tcpTable(this.#pid, [...new Set(this.#tcpAddresses.map(portOf))], states).filter(({ local }) =>
      accepts(local),
    );
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
        sockets.push({ inode: Number(inode), state: listens ? LISTEN : 1, local, peer: '' });
    }
    return sockets;
  }
}

const UNIX_ACCEPTS = 0x10000;

function isPath(address: string): boolean {
  return address.startsWith('/') || address.startsWith('@');
}

/** By netlink where the process shares our network; from its own /proc/PID/net otherwise. */
function tcpTable(pid: number, ports: readonly string[], states: readonly number[]): TcpSocket[] {
  if (sameNetwork(pid)) {
    try {
      return ports.flatMap((port) => tcpSockets(Number(port), states));
    } catch {
      // A kernel without inet_diag, or a container that forbids netlink: the text has the same.
    }
  }
  return tcpTableFromProc(pid, ports, states);
}

/** Exported for its tests. */
export function tcpTableFromProc(pid: number, ports: readonly string[], states: readonly number[]): TcpSocket[] {
  const wanted = new Set(ports.map((port) => Number(port).toString(16).toUpperCase().padStart(4, '0')));
  const sockets: TcpSocket[] = [];
  for (const table of ['tcp', 'tcp6']) {
    for (const line of tableLines(`/proc/${pid}/net/${table}`)) {
      // sl local remote st tx:rx tr:when retrnsmt uid timeout inode
      const columns = line.trimStart().split(/\s+/);
      const local = columns[1] ?? '';
      const state = Number.parseInt(columns[3] ?? '0', 16);
      if (!wanted.has(portOf(local)) || !states.includes(state)) continue;
      sockets.push({
        inode: Number(columns[9]),
        state,
        local: tcpAddress(local).replace('tcp://', ''),
        peer: tcpAddress(columns[2] ?? '').replace('tcp://', ''),
      });
    }
  }
  return sockets;
}

function heldSockets(pid: number): Set<number> {
  const held = new Set<number>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      const link = readlinkSync(`/proc/${pid}/fd/${fd}`);
      if (link.startsWith('socket:[')) held.add(Number(link.slice(8, -1)));
    } catch {
      // closed while the folder is read
    }
  }
  return held;
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

function tableLines(file: string): string[] {
  try {
    return readFileSync(file, 'latin1').split('\n').slice(1).filter(Boolean);
  } catch {
    return []; // no IPv6 in this kernel
  }
}
