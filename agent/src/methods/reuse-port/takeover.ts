import { setTimeout as delay } from 'node:timers/promises';
import { SluiceError } from '@sluice/contract';
import type { Epoch } from '../../epochs/epoch.ts';
import { isAlive } from '../../epochs/proc.ts';
import type { KeeperContext } from '../../keeper/context.ts';
import { keepListeners } from '../../keeper/kept.ts';
import { gracePeriod } from '../../native/reuseport.ts';
import type { ListenGroups } from './groups.ts';

/** A client that lives ends its handshake in a round trip; in this time the kernel repeats a lost SYN-ACK twice. */
const HANDSHAKE_BOUND_MS = 5_000;
/** Envoy's workers take what waits at once; one that does not is stuck, and what waits is lost either way. */
const QUEUE_BOUND_MS = 5_000;
const STOP_BOUND_MS = 10_000;
const ADMIN_BOUND_MS = 2_000;
const STOP_TRIES = 3;

export interface TakeOver {
  readonly context: KeeperContext;
  readonly groups: ListenGroups;
  readonly old: Epoch;
  /** Ready; it listens on the same addresses, and no new connection was steered to it yet. */
  readonly epoch: Epoch;
}

/**
 * New connections pass from one Envoy to another one that listens on the same addresses, and none is lost:
 *
 *   hold    | new connections go to the old sockets, by a program in each group; the new Envoy starts and listens
 *   flip    | the program points to the new sockets; a grace period later no packet is handled by the one before
 *   quiet   | handshakes begun before the flip end, and the old Envoy accepts what waits in its queues
 *   stop    | the old Envoy closes its listeners (`/drain_listeners`: their connections stay); our dups keep the sockets
 *   remove  | the dups are closed one by one, each under a program that holds before and after; then no program is left
 *
 * Throws while the old one accepts, and new connections go to it: before the flip, and when the new one dies before the
 * stop. Otherwise it goes on: after the flip the new one has connections, which going back would cut. An old one that can
 * not be told to stop is steered around until it ends.
 */
export async function takeOver(parts: TakeOver): Promise<void> {
  const { groups, old, epoch, context } = parts;
  // What can be known to fail is asked before the flip.
  if (isAlive(old.process)) await old.admin.get('/server_info', ADMIN_BOUND_MS);
  const missing = await groups.join(epoch);
  if (missing.length > 0) context.log('warn', 'the new epoch does not listen where the old one does', { missing });
  const told = (step: string) => context.log('debug', `steering: ${step}`, { epoch: epoch.number, old: old.number });
  // On disk first: a successor of this agent must know that connections may have come to the new epoch.
  epoch.update({ steered: true });
  told('to the new epoch');
  try {
    await groups.flip();
    await quiet(parts);
    told('quiet');
    if (!isAlive(epoch.process)) throw new SluiceError('EPOCH_DIED', `expected epoch ${epoch.number} to live on`);
  } catch (error) {
    await groups.flipBack();
    throw error;
  }
  const stopped = await stop(parts);
  told('the old epoch stopped');
  // Nobody but the new one accepts from here on: whatever fails must not end it.
  const undone = (error: unknown) => context.log('warn', 'steering not undone', { error: String(error) });
  const leave = () => groups.remove().finally(() => groups.release());
  try {
    if (!stopped) old.update({ steeredAround: true });
    const late = stopped ? groups.waiting() : 0;
    if (late > 0) context.log('error', 'connections fell to the old epoch after it was steered around', { late });
    // What is kept from here on is the new epoch's; the dups of the groups alone hold the old sockets.
    await keepListeners(context, epoch);
  } catch (error) {
    undone(error);
  }
  if (stopped) await leave().catch(undone);
  else void old.gone.then(leave).catch(undone);
}

/** Bounded: a client that never ends its handshake (a port scan) must not hold up the rest for ever. */
async function quiet({ context, groups, old, epoch }: TakeOver): Promise<void> {
  const { log } = context;
  const dead = () => !isAlive(epoch.process);
  let begun = groups.handshakes();
  const ended = await until(HANDSHAKE_BOUND_MS, () => {
    if (begun.size > 0) {
      const still = groups.handshakes();
      begun = new Set([...begun].filter((handshake) => still.has(handshake)));
    }
    return begun.size === 0 || dead();
  });
  if (!ended) log('warn', 'handshakes from before the change are not waited for', { handshakes: begun.size });
  // From the table of handshakes to the accept queue is a step that both tables may miss.
  await gracePeriod();
  const accepted = await until(QUEUE_BOUND_MS, () => groups.waiting() === 0 || !isAlive(old.process) || dead());
  if (!accepted) log('error', 'the old epoch does not accept what waits for it', { waiting: groups.waiting() });
}

async function stop({ context, groups, old }: TakeOver): Promise<boolean> {
  for (let tried = 1; isAlive(old.process); tried++) {
    try {
      await old.admin.post('/drain_listeners', ADMIN_BOUND_MS);
      if (await until(STOP_BOUND_MS, () => !groups.heldByOld())) return true;
      throw new Error(`its listeners are open after ${STOP_BOUND_MS} ms`);
    } catch (error) {
      const fields = { epoch: old.number, error: String(error) };
      if (tried >= STOP_TRIES) {
        context.log('error', 'the old epoch can not be told to stop accepting; it is steered around', fields);
        return false;
      }
      context.log('warn', 'the old epoch did not stop accepting; told again', fields);
      await delay(100 * 2 ** tried);
    }
  }
  return true;
}

/** The kernel tells of none of these by an event: looks, each later than the one before. */
async function until(boundMs: number, isSo: () => boolean): Promise<boolean> {
  const end = Date.now() + boundMs;
  for (let wait = 1; ; wait = Math.min(wait * 2, 100)) {
    if (isSo()) return true;
    if (Date.now() > end) return false;
    await delay(wait);
  }
}
