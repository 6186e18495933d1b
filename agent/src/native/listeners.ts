import { socketFds } from './proc-fd.ts';
import { TCP_LISTEN, tableLines, tcpTable } from './tcp-table.ts';

export interface ListenFd {
  /** Descriptor number in that process's table. */
  readonly fd: number;
  readonly inode: number;
  /** As Envoy writes it: `tcp://1.2.3.4:80`, `tcp://[::1]:80`, `unix:///path` (`unix://@name` when abstract). */
  readonly address: string;
}

const UNIX_ACCEPTS = 0x10000;

/**
 * The listening stream sockets of a live process, one entry per descriptor, ascending. Throws ENOENT or EACCES when the
 * process is gone or belongs to somebody else. Sockets of other network namespaces than its own are not seen.
 */
export function listenFds(pid: number): ListenFd[] {
  const sockets = [...socketFds(pid)];
  const listening = listeningInodes(pid);
  return sockets
    .flatMap(({ fd, inode }) => {
      const address = listening.get(inode);
      return address === undefined ? [] : [{ fd, inode, address }];
    })
    .sort((a, b) => a.fd - b.fd);
}

function listeningInodes(pid: number): Map<number, string> {
  const inodes = new Map<number, string>();
  for (const { inode, local } of tcpTable(pid, { states: [TCP_LISTEN] })) inodes.set(inode, `tcp://${local}`);
  for (const line of tableLines(`/proc/${pid}/net/unix`)) {
    // Num RefCount Protocol Flags Type St Inode Path
    const [, , , flags = '0', , , inode, ...path] = line.trim().split(' ').filter(Boolean);
    if ((Number.parseInt(flags, 16) & UNIX_ACCEPTS) !== 0) inodes.set(Number(inode), `unix://${path.join(' ')}`);
  }
  return inodes;
}
