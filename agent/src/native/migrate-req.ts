import { readFileSync } from 'node:fs';

/**
 * net.ipv4.tcp_migrate_req of our network: what waits in the queue of a listen socket that closes moves to another one of
 * its SO_REUSEPORT group, and is not reset. Undefined where this kernel does not have it.
 */
export function migratesRequests(read = (path: string) => readFileSync(path, 'latin1')): boolean | undefined {
  try {
    return read('/proc/sys/net/ipv4/tcp_migrate_req').trim() === '1';
  } catch {
    return undefined;
  }
}
