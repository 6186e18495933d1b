import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface ListenFd {
  /** Descriptor number in that process's table. */
  readonly fd: number;
  readonly inode: number;
  /** As Envoy writes it: `tcp://1.2.3.4:80`, `tcp://[::1]:80`, `unix:///path` (`unix://@name` when abstract). */
  readonly address: string;
}

const TCP_LISTEN = '0A';
const UNIX_ACCEPTS = 0x10000;

/**
 * The listening stream sockets of a live process, one entry per descriptor, ascending. Reads /proc only; throws ENOENT
 * or EACCES when the process is gone or belongs to somebody else. Sockets of other network namespaces are not seen.
 */
export function listenFds(pid: number): ListenFd[] {
  const sockets: { fd: number; inode: number }[] = [];
  for (const name of readdirSync(`/proc/${pid}/fd`)) {
    const inode = Number(/^socket:\[(\d+)\]$/.exec(linkOf(pid, name))?.[1] ?? 0);
    if (inode !== 0) sockets.push({ fd: Number(name), inode });
  }
  const listening = listeningInodes(pid);
  return sockets
    .flatMap(({ fd, inode }) => {
      const address = listening.get(inode);
      return address === undefined ? [] : [{ fd, inode, address }];
    })
    .sort((a, b) => a.fd - b.fd);
}

/** A descriptor may be closed while the folder is read. */
function linkOf(pid: number, fd: string): string {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`);
  } catch {
    return '';
  }
}

function listeningInodes(pid: number): Map<number, string> {
  const inodes = new Map<number, string>();
  for (const table of ['tcp', 'tcp6']) {
    for (const line of lines(`/proc/${pid}/net/${table}`)) {
      // sl local remote st tx:rx tr:when retrnsmt uid timeout inode
      const columns = line.trim().split(/\s+/);
      if (columns[3] === TCP_LISTEN) inodes.set(Number(columns[9]), tcpAddress(columns[1] ?? ''));
    }
  }
  for (const line of lines(`/proc/${pid}/net/unix`)) {
    // Num RefCount Protocol Flags Type St Inode Path
    const [, , , flags = '0', , , inode, ...path] = line.trim().split(' ').filter(Boolean);
    if ((Number.parseInt(flags, 16) & UNIX_ACCEPTS) !== 0) inodes.set(Number(inode), `unix://${path.join(' ')}`);
  }
  return inodes;
}

/** `0100007F:59D8`: words of four bytes in the machine's order (little-endian on all that Envoy runs on), port in hex. */
export function tcpAddress(column: string): string {
  const [host = '', port = ''] = column.split(':');
  const words = host.match(/.{8}/g) ?? [];
  const bytes = words.flatMap((word) => [...Buffer.from(word, 'hex').reverse()]);
  if (bytes.length === 4) return `tcp://${bytes.join('.')}:${Number.parseInt(port, 16)}`;
  const groups = Array.from({ length: 8 }, (_, i) =>
    Buffer.from(bytes)
      .readUInt16BE(2 * i)
      .toString(16),
  );
  // URL has the one short spelling of an IPv6 address.
  return `tcp://${new URL(`tcp://[${groups.join(':')}]`).hostname}:${Number.parseInt(port, 16)}`;
}

/** Without the heading. A table that this kernel does not have (no IPv6) is empty. */
function lines(path: string): string[] {
  try {
    return readFileSync(path, 'latin1').trimEnd().split('\n').slice(1);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' && path.endsWith('6')) return [];
    throw error;
  }
}
