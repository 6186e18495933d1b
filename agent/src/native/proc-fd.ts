import { readdirSync, readlinkSync } from 'node:fs';

export interface SocketFd {
  /** Descriptor number in that process's table. */
  readonly fd: number;
  readonly inode: number;
}

/**
 * The sockets among a process's descriptors, read one at a time (about 8 us each), so that whoever seeks one may stop at
 * it. Throws ENOENT or EACCES when the process is gone or belongs to somebody else.
 */
export function* socketFds(pid: number): Generator<SocketFd> {
  for (const name of readdirSync(`/proc/${pid}/fd`)) {
    const link = linkOf(pid, name);
    if (link.startsWith('socket:[')) yield { fd: Number(name), inode: Number(link.slice(8, -1)) };
  }
}

/** The inodes of all its sockets; throws as `socketFds` does. */
export function heldSockets(pid: number): Set<number> {
  const held = new Set<number>();
  for (const { inode } of socketFds(pid)) held.add(inode);
  return held;
}

/** A descriptor may be closed while the folder is read. */
function linkOf(pid: number, fd: string): string {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`);
  } catch {
    return '';
  }
}
