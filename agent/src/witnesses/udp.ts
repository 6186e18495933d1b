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
  return withoutPeer(pid).filter((address) => {
    const port = Number(address.split(':').at(-1));
    return tcpPorts.has(port) || port < first;
  });
}

/** Whether the process may have a UDP listener: each has a socket without a peer. True where that can not be seen. */
export function mayListenByUdp(pid: number): boolean {
  const held = heldByLiving(pid);
  return held === undefined || tablesOf(pid).every((table) => table === '') || withoutPeer(pid, held).length > 0;
}

function withoutPeer(pid: number, held = heldByLiving(pid)): string[] {
  const found = new Set<string>();
  for (const table of tablesOf(pid)) {
    for (const line of table.split('\n').slice(1)) {
      const columns = line.trimStart().split(/\s+/);
      if (held?.has(Number(columns[9])) && /:0000$/.test(columns[2] ?? '')) found.add(addressText(columns[1] ?? ''));
    }
  }
  return [...found];
}

function tablesOf(pid: number): string[] {
  return ['udp', 'udp6'].map((table) => read(`/proc/${pid}/net/${table}`));
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
