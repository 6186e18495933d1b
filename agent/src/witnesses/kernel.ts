import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { listenFds, tcpAddress } from '../native/listeners.ts';

/**
 * States in which a socket is a connection that Envoy has not ended: ESTABLISHED, FIN_WAIT1 (response on its way),
 * FIN_WAIT2, CLOSE_WAIT (the client half-closed), LAST_ACK, CLOSING. All the same only sockets that Envoy still holds a
 * descriptor of are counted.
 */
const OPEN_STATES = new Set(['01', '04', '05', '08', '09', '0B']);

export interface KernelSocket {
  readonly inode: number;
  /** `127.0.0.1:10000`, IPv6 in brackets. */
  readonly local: string;
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
  const held = heldSockets(pid);
  const accepts = addressMatcher(listenAddresses);
  const sockets: KernelSocket[] = [];
  for (const table of ['tcp', 'tcp6']) {
    for (const line of tableLines(`/proc/${pid}/net/${table}`)) {
      const columns = line.trimStart().split(/\s+/);
      if (!OPEN_STATES.has(columns[3] ?? '')) continue;
      const inode = Number(columns[9]);
      if (!held.has(inode)) continue;
      const local = tcpAddress(columns[1] ?? '').replace('tcp://', '');
      if (accepts(local)) sockets.push({ inode, local, peer: tcpAddress(columns[2] ?? '').replace('tcp://', '') });
    }
  }
  const paths = new Set(listenAddresses.filter((a) => a.startsWith('/') || a.startsWith('@')));
  if (paths.size > 0) {
    for (const line of tableLines(`/proc/${pid}/net/unix`)) {
      // Num RefCount Protocol Flags Type St Inode Path; St 03 = connected. An accepted socket carries the listener's path.
      const [, , , , , state, inode, ...path] = line.trim().split(/\s+/);
      const local = path.join(' ');
      if (state === '03' && paths.has(local) && held.has(Number(inode)))
        sockets.push({ inode: Number(inode), local, peer: '' });
    }
  }
  return { open: sockets.length, sockets };
}

function heldSockets(pid: number): Set<number> {
  const held = new Set<number>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1];
      if (inode !== undefined) held.add(Number(inode));
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
