import type { Log } from '../log.ts';
import type { Driver } from './driver.ts';
import { untilThere } from './persist.ts';
import { newId, type UpgradeState, type UpgradeWish } from './state.ts';

/** An upgrade that an agent wants, which says so once: it waits for a store that is away. */
export function propose(
  driver: Pick<Driver, 'create'>,
  wish: Omit<UpgradeWish, 'id'>,
  log: Log,
  signal: AbortSignal,
): Promise<UpgradeState> {
  // One that was stored although nobody answered is not stored twice.
  const id = newId(Date.now());
  return untilThere(() => driver.create({ ...wish, id }), log, signal);
}
