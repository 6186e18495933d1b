import { readFileSync } from 'node:fs';
import { heldSockets } from '../native/proc-fd.ts';
import { addressText } from '../native/tcp-address.ts';

/**
 * UDP sockets of a process that look like listeners: bound, without a peer, on a port that it listens on by TCP too or
 * below the ephemeral range. Resolver sockets (c-ares) are connected or on ephemeral ports, and are left out.
 */
export function udpAddressesOf(pid: number, tcpAddresses: readonly string[]): string[] {
  const first = Number(/^\d+/.exec(read('/proc/sys/net/ipv4/ip_local_port_range'))?.[0] ?? 32_768);
  const tcpPorts = new Set(tcpAddresses.map((address) => Number(address.split(':').at(-1))));
  return (withoutPeer(pid) ?? []).filter((address) => {
    const port = Number(address.split(':').at(-1));
    return tcpPorts.has(port) || port < first;
  });
}

/** Whether the process may have a UDP listener: each has a socket without a peer. True where that can not be seen. */
export function mayListenByUdp(pid: number): boolean {
  return withoutPeer(pid)?.length !== 0;
}

/** Addresses of its UDP sockets that have no peer. undefined: it is gone, or may not be looked at. */
function withoutPeer(pid: number): string[] | undefined {
  const tables = ['udp', 'udp6'].map((table) => read(`/proc/${pid}/net/${table}`));
  if (tables.every((table) => table === '')) return undefined;
  const rows = tables
    .flatMap((table) => table.split('\n').slice(1))
    .map((line) => line.trimStart().split(/\s+/))
    .filter((columns) => /:0000$/.test(columns[2] ?? ''));
  // To look at each descriptor is dear where there are ten thousand connections, and mostly there is nothing to look for.
  if (rows.length === 0) return [];
  const held = heldByLiving(pid);
  if (held === undefined) return undefined;
  return [...new Set(rows.filter((row) => held.has(Number(row[9]))).map((row) => addressText(row[1] ?? '')))];
}

/** undefined: it is gone, or may not be looked at. */
function heldByLiving(pid: number): Set<number> | undefined {
  try {
    return heldSockets(pid);
  } catch {
    return undefined;
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
