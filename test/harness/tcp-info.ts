import type { Socket } from 'node:net';
import { libc } from '@sluice/agent/native/libc';

const IPPROTO_TCP = 6;
const TCP_INFO = 11;
/** tcpi_total_retrans in struct tcp_info (include/uapi/linux/tcp.h). */
const TOTAL_RETRANS = 100;

/** How many SYNs of a socket that has just connected were sent again; undefined: it is closed already. */
export function synsSentAgain(socket: Socket): number | undefined {
  const { fd = -1 } = (socket as unknown as { _handle?: { fd?: number } })._handle ?? {};
  const info = Buffer.alloc(TOTAL_RETRANS + 4);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(info.length);
  if (fd < 0 || libc().getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, length) !== 0) return undefined;
  return info.readUInt32LE(TOTAL_RETRANS);
}
