import { readFileSync, readlinkSync } from 'node:fs';
import { type Family, type TcpSocket, tcpSockets } from './sock-diag.ts';
import { addressText } from './tcp-address.ts';

export type { TcpSocket } from './sock-diag.ts';

export const TCP_LISTEN = 10;

export interface TcpQuery {
  readonly states: readonly number[];
  /** Local ports; all of them when absent. */
  readonly ports?: readonly number[];
  /** Both when absent. A socket that `[::]` accepted from an IPv4 client is of IPv6. */
  readonly families?: readonly Family[];
}

/**
 * TCP sockets of the network that process `pid` lives in, of whatever process. By netlink where that is our own network
 * too, because its cost does not grow with the connections in TIME_WAIT; from the text of /proc otherwise. Throws when
 * the table can not be read.
 */
export function tcpTable(pid: number, query: TcpQuery): TcpSocket[] {
  if (sameNetwork(pid)) {
    try {
      return tcpSockets(query.states, query.ports, query.families);
    } catch {
      // A kernel without inet_diag, or a container that forbids netlink: the text has the same.
    }
  }
  return tcpTableFromProc(pid, query);
}

/** Netlink shows our own network only. */
function sameNetwork(pid: number): boolean {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`) === readlinkSync('/proc/self/ns/net');
  } catch {
    return false;
  }
}

/** The same from /proc/PID/net/tcp and tcp6. Exported for its tests. */
export function tcpTableFromProc(pid: number, { states, ports }: TcpQuery): TcpSocket[] {
  const wanted = ports && new Set(ports.map((port) => port.toString(16).toUpperCase().padStart(4, '0')));
  const sockets: TcpSocket[] = [];
  for (const table of ['tcp', 'tcp6']) {
    for (const line of tableLines(`/proc/${pid}/net/${table}`)) {
      // sl local remote st tx:rx tr:when retrnsmt uid timeout inode
      const columns = line.trimStart().split(/\s+/);
      const [, local = '', peer = '', st = '0'] = columns;
      const state = Number.parseInt(st, 16);
      if (!states.includes(state) || (wanted && !wanted.has(local.slice(local.lastIndexOf(':') + 1)))) continue;
      const unsent = state !== TCP_LISTEN && Number.parseInt(columns[4] ?? '0', 16) > 0; // stops at the colon
      sockets.push({ inode: Number(columns[9]), state, local: addressText(local), peer: addressText(peer), unsent });
    }
  }
  return sockets;
}

/** Lines of a table under /proc without the heading. One that this kernel does not have (no IPv6) is empty. */
export function tableLines(path: string): string[] {
  try {
    return readFileSync(path, 'latin1').trimEnd().split('\n').slice(1);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' && path.endsWith('6')) return [];
    throw error;
  }
}
