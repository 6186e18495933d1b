import type { Party } from '../broker/index.ts';
import type { Log } from '../log.ts';
import { hasReusePort } from '../native/fds.ts';
import { untilEnded } from '../native/process-end.ts';
import { steer } from '../native/reuseport.ts';
import { NO_UDP, udpListeners } from '../witnesses/listener-kinds.ts';
import { udpAddressesOf } from '../witnesses/udp.ts';
import type { Epoch } from './epoch.ts';
import { isAlive, signal } from './proc.ts';
import { startRelay } from './quic-relay.ts';

/** After SIGKILL its names are free within milliseconds. */
const END_MS = 2_000;

/**
 * Whether the epoch holds UDP sockets that pass on: preflight lets only QUIC listeners come so far. By its configuration, for
 * of a socket on an ephemeral port nobody can tell what it is for; and by its sockets, where that can not be read any more.
 */
export async function hasQuic(epoch: Epoch): Promise<boolean> {
  if (epoch.meta.relay !== undefined) return true;
  if (udpAddressesOf(epoch.process.pid, epoch.meta.listenAddresses ?? []).length > 0) return true;
  const { quic } = await udpListeners(epoch).catch(() => NO_UDP);
  return quic.names.length > 0;
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
  await startRelay(
    { baseId: old.meta.baseId, parent: old.party, child, old: old.process, alive: old.folder.alive },
    (relay) => old.update({ relay }),
    (word) => {
      if (word.event === 'trouble') {
        log('warn', 'a QUIC packet was not passed on', { epoch: old.number, error: word.error });
      } else if (word.event === 'ended') {
        log('debug', 'QUIC packets passed on to the next epoch', { epoch: old.number, packets: word.packets });
      }
    },
  );
}

/**
 * The same for a handover of an earlier agent, whose relay goes on as a rule. Without one the old epoch may abort, and the
 * new one serves on: no reason not to go on.
 */
export async function relayQuicOn(old: Epoch, child: Party, log: Log): Promise<void> {
  if (old.meta.relay !== undefined && isAlive(old.meta.relay)) return;
  try {
    await relayQuic(old, child, log);
  } catch (error) {
    log('error', 'QUIC packets are not passed on', { epoch: old.number, error: String(error) });
  }
}

/** Ends it before the old epoch does; only where no child is. Does nothing where there is no relay. */
export async function endRelay(old: Epoch): Promise<void> {
  const { relay } = old.meta;
  if (relay === undefined) return;
  if (signal(relay, 'SIGKILL')) await untilEnded(relay.pid, END_MS);
  old.update({ relay: undefined });
}
