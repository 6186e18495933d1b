import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Reserves an epoch number for one agent of a proxy: a folder made with O_EXCL semantics in the shared volume, so that two
 * agents that ask at once get two numbers.
 */
export function reserveEpoch(shared: string, atLeast: number): number {
  const folder = join(shared, 'epochs');
  mkdirSync(folder, { recursive: true });
  for (let epoch = Math.max(atLeast, lastReserved(shared) + 1); ; epoch++) {
    try {
      mkdirSync(join(folder, String(epoch)));
      return epoch;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}

/** -1 when none is. */
export function lastReserved(shared: string): number {
  try {
    return Math.max(-1, ...readdirSync(join(shared, 'epochs')).map(Number).filter(Number.isInteger));
  } catch {
    return -1;
  }
}
