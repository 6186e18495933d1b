import type { Party } from '../broker/index.ts';
import type { Log } from '../log.ts';
import { hasReusePort } from '../native/fds.ts';
import { steer } from '../native/reuseport.ts';
import { udpAddressesOf } from '../witnesses/udp.ts';
import type { Epoch } from './epoch.ts';
import { isAlive, signal } from './proc.ts';
import { startRelay } from './quic-relay.ts';

/** After SIGKILL its names are free within milliseconds. */
const END_MS = 2_000;
const LOOK_MS = 5;

/** Whether the epoch holds UDP sockets that pass on: preflight lets only QUIC listeners come so far. */
export function hasQuic(epoch: Epoch): boolean {
  return udpAddressesOf(epoch.process.pid, epoch.meta.listenAddresses ?? []).length > 0;
}

/**
 * Whether the child binds a socket of its own beside this one of the old epoch. What both read is taken by either: from its
 * terminate request on, 2 s after the handover, a child reads too, and answers packets of the old epoch's connections with
 * a stateless reset (hot_restarting_child.cc, allDrainsImplicitlyComplete). Sockets of one reuse_port group are chosen by a
 * program on the connection id, which counts to the number of workers, and those of the old epoch come first, as long as
 * it lives (quic/active_quic_listener.cc; native/reuseport.ts). One worker alone has no program: it is given one.
 */
export function besideQuic(fd: number, workers: number): boolean {
  if (!hasReusePort(fd)) return false;
  if (workers === 1) steer(fd, [0]);
  return true;
}

/**
 * Passes the packets of its child's QUIC connections on until the old epoch has ended, in a process of its own: a client
 * gives a QUIC connection up that hears nothing for little more than a second (measured.md), and an agent may be away for
 * longer. When it can not, the handover would end the old epoch within seconds (broker/udp.ts): then it throws, and
 * nothing is touched.
 */
export async function relayQuic(old: Epoch, child: Party, log: Log): Promise<void> {
  await endRelay(old); // of a handover that came to nothing
  const { baseId, alive } = { baseId: old.meta.baseId, alive: old.folder.alive };
  const relay = await startRelay({ baseId, parent: old.party, child, old: old.process, alive }, (word) => {
    if (word.event === 'trouble') {
      log('warn', 'a QUIC packet was not passed on', { epoch: old.number, error: word.error });
    } else if (word.event === 'ended') {
      log('debug', 'QUIC packets passed on to the next epoch', { epoch: old.number, packets: word.packets });
    }
  });
  old.update({ relay });
}

/** The one that an earlier agent started goes on. */
export async function relayQuicOn(old: Epoch, child: Party, log: Log): Promise<void> {
  if (old.meta.relay === undefined || !isAlive(old.meta.relay)) await relayQuic(old, child, log);
}

/** Ends it before the old epoch does; only where no child is. */
export async function endRelay(old: Epoch): Promise<void> {
  const { relay } = old.meta;
  if (relay === undefined) return;
  signal(relay, 'SIGKILL');
  const until = performance.now() + END_MS;
  while (isAlive(relay) && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  old.update({ relay: undefined });
}
