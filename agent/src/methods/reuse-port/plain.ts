import { setTimeout as delay } from 'node:timers/promises';
import type { Epoch } from '../../epochs/epoch.ts';
import { isAlive } from '../../epochs/proc.ts';
import type { KeeperContext } from '../../keeper/context.ts';
import { listenAddressesOf } from '../../witnesses/kernel.ts';

const ADMIN_BOUND_MS = 2_000;
const STOP_BOUND_MS = 10_000;

/**
 * The same without steering, where net.ipv4.tcp_migrate_req moves what waits in the queue of a closed socket to another
 * one of its group: both accept, then the old one stops. Throws while the old one accepts; told to stop, it does so in
 * its own time.
 */
export async function takeOverPlainly({ log }: Pick<KeeperContext, 'log'>, old: Epoch, epoch: Epoch): Promise<void> {
  epoch.update({ steered: true });
  if (!isAlive(old.process)) return;
  await old.admin.post('/drain_listeners', ADMIN_BOUND_MS);
  const end = Date.now() + STOP_BOUND_MS;
  for (let wait = 1; accepts(old); wait = Math.min(wait * 2, 100)) {
    if (Date.now() > end) return log('error', 'the old epoch did not close its listeners', { epoch: old.number });
    await delay(wait);
  }
}

/** Does it listen, its admin apart? */
export function accepts({ process, meta }: Epoch): boolean {
  return listenAddressesOf(process.pid).some((address) => address !== meta.adminAddress);
}
