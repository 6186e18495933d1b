import { closeSync, rmSync } from 'node:fs';
import { SluiceError } from '@sluice/contract';
import { libc, must } from './libc.ts';

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC_NONBLOCK = 2 | 0o2000000 | 0o4000;
const PATH_LENGTH = 108;

/**
 * A datagram socket at `path`, for sd_notify(3): a process that is given the path in NOTIFY_SOCKET says READY=1 there. By
 * path and not by an abstract name, so that the rights of the folder say who may speak. A stale file is replaced.
 */
export function bindNotify(path: string): number {
  const bytes = Buffer.from(path);
  if (bytes.length >= PATH_LENGTH) {
    throw new SluiceError(
      'CONFIG_INVALID',
      `expected a socket path of at most ${PATH_LENGTH - 1} bytes, found ${path}`,
      {
        hint: 'choose a run folder with a shorter path',
      },
    );
  }
  rmSync(path, { force: true });
  const address = Buffer.alloc(2 + PATH_LENGTH);
  address.writeUInt16LE(AF_UNIX, 0);
  bytes.copy(address, 2);
  const fd = must('socket', libc().socket(AF_UNIX, SOCK_DGRAM_CLOEXEC_NONBLOCK, 0));
  try {
    must('bind', libc().bind(fd, address, address.length));
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
