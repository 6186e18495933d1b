import { close, pidfdGetfd, pidfdOpen } from '../native/fds.ts';
import { libc } from '../native/libc.ts';
import { socketFds } from '../native/proc-fd.ts';

const SHUT_RD = 0;

/**
 * Ends one connection of another process gently: its reading side is shut, so Envoy sees what it sees when a client
 * closes, and closes in turn with FIN. For Envoys that run no filter; needs the right to ptrace. False when it could not
 * be done (gone already, or not permitted): the connection then stays, and is waited for.
 */
export function shutdownSocket(pid: number, inode: number): boolean {
  const pidfd = pidfdOpen(pid);
  if (pidfd === undefined) return false;
  try {
    const fd = fdOf(pid, inode);
    if (fd === undefined) return false;
    const copy = pidfdGetfd(pidfd, fd);
    try {
      return libc().shutdown(copy, SHUT_RD) === 0;
    } finally {
      close(copy);
    }
  } catch {
    return false;
  } finally {
    close(pidfd);
  }
}

function fdOf(pid: number, inode: number): number | undefined {
  for (const socket of socketFds(pid)) if (socket.inode === inode) return socket.fd;
  return undefined;
}
