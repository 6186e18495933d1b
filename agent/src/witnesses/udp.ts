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
  const held = heldByLiving(pid);
  const found = new Set<string>();
  for (const table of ['udp', 'udp6']) {
    for (const line of read(`/proc/${pid}/net/${table}`).split('\n').slice(1)) {
      const columns = line.trimStart().split(/\s+/);
      if (!held.has(Number(columns[9])) || !/:0000$/.test(columns[2] ?? '')) continue;
      const address = addressText(columns[1] ?? '');
      const port = Number(address.split(':').at(-1));
      if (tcpPorts.has(port) || port < first) found.add(address);
    }
  }
  return [...found];
}

/** A process that is gone holds none. */
function heldByLiving(pid: number): Set<number> {
  try {
    return heldSockets(pid);
  } catch {
    return new Set();
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
