import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

const ESTABLISHED = '01';

/**
 * Local ports of the clients whose connections the process holds, of those to the given listen ports: the kernel's word,
 * independent of what any part of Sluice says. IPv4.
 */
export function clientPortsOf(pid: number, listenPorts: readonly number[]): Set<number> {
  const inodes = new Set<string>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      const match = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`));
      if (match?.[1] !== undefined) inodes.add(match[1]);
    } catch {
      // Closed since it was listed.
    }
  }
  return parseTcp(readFileSync(`/proc/${pid}/net/tcp`, 'latin1'), inodes, new Set(listenPorts));
}

/** Columns of /proc/net/tcp: sl local rem st tx:rx tr:tm retrnsmt uid timeout inode; addresses in hex. */
export function parseTcp(text: string, inodes: ReadonlySet<string>, listenPorts: ReadonlySet<number>): Set<number> {
  const ports = new Set<number>();
  for (const line of text.split('\n').slice(1)) {
    const [, local, remote, state, , , , , , inode] = line.trim().split(/\s+/);
    if (state !== ESTABLISHED || inode === undefined || !inodes.has(inode)) continue;
    if (listenPorts.has(portOf(local))) ports.add(portOf(remote));
  }
  return ports;
}

function portOf(address: string | undefined): number {
  return Number.parseInt(address?.split(':')[1] ?? '', 16);
}
