import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { tcpAddress } from '../native/listeners.ts';

/**
 * UDP sockets of a process that look like listeners: bound, without a peer, on a port that it listens on by TCP too or
 * below the ephemeral range. Resolver sockets (c-ares) are connected or on ephemeral ports, and are left out.
 */
export function udpAddressesOf(pid: number, tcpAddresses: readonly string[]): string[] {
  const first = Number(/^\d+/.exec(read('/proc/sys/net/ipv4/ip_local_port_range'))?.[0] ?? 32_768);
  const tcpPorts = new Set(tcpAddresses.map((address) => Number(address.split(':').at(-1))));
  const held = heldSockets(pid);
  const found = new Set<string>();
  for (const table of ['udp', 'udp6']) {
    for (const line of read(`/proc/${pid}/net/${table}`).split('\n').slice(1)) {
      const columns = line.trimStart().split(/\s+/);
      if (!held.has(columns[9] ?? '') || !/:0000$/.test(columns[2] ?? '')) continue;
      const address = tcpAddress(columns[1] ?? '').replace('tcp://', '');
      const port = Number(address.split(':').at(-1));
      if (tcpPorts.has(port) || port < first) found.add(address);
    }
  }
  return [...found];
}

function heldSockets(pid: number): Set<string> {
  const held = new Set<string>();
  try {
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      const inode = /^socket:\[(\d+)\]$/.exec(link(`/proc/${pid}/fd/${fd}`))?.[1];
      if (inode !== undefined) held.add(inode);
    }
  } catch {
    // gone
  }
  return held;
}

function link(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
