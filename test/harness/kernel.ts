import { readdir, readFile, readlink } from 'node:fs/promises';

const ESTABLISHED = '01';

/**
 * Local ports of the clients whose connections the process holds, of those to the given listen ports: the kernel's word,
 * independent of what any part of Sluice says. IPv4. Asynchronous: with 10,000 sockets in TIME_WAIT the kernel takes half a
 * second to write the table, and the clients' clock must not stand still for it.
 */
export async function clientPortsOf(pid: number, listenPorts: readonly number[]): Promise<Set<number>> {
  const inodes = new Set<string>();
  for (const fd of await readdir(`/proc/${pid}/fd`)) {
    // Undefined: closed since it was listed.
    const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => undefined);
    const inode = /^socket:\[(\d+)\]$/.exec(target ?? '')?.[1];
    if (inode !== undefined) inodes.add(inode);
  }
  return parseTcp(await readFile(`/proc/${pid}/net/tcp`, 'latin1'), inodes, new Set(listenPorts));
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
