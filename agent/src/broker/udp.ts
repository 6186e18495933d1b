import { close } from '../native/fds.ts';
import { Channel } from './channel.ts';
import { namesOf, udpName } from './names.ts';
import type { Party } from './types.ts';

/** Beyond this they are dropped, as a full socket drops them: QUIC sends again. */
const MAX_BACKLOG = 1_000;

export interface UdpRelay {
  /** Datagrams passed on so far. */
  readonly passed: number;
  close(): void;
}

/**
 * A parent reads the UDP sockets that it shares with its child as long as it lives, and passes what is not of its own QUIC
 * connections on to the child, over a pair of sockets beside those of hot restart (hot_restarting_parent.cc,
 * HotRestartUdpForwardingContext). This relays them, for two epochs with socket paths of their own. To be open from before
 * the handover until the parent has ended: a parent whose datagrams find nobody aborts (measured). Throws UPGRADE_CONFLICT
 * when another relay holds one of the names.
 */
export function relayUdp(options: {
  readonly baseId: number;
  readonly parent: Party;
  readonly child: Party;
  readonly onError: (error: unknown) => void;
}): UdpRelay {
  const parent = namesOf(options.baseId, options.parent);
  const child = namesOf(options.baseId, options.child);
  const { onError } = options;
  let passed = 0;
  // A child that is gone reads nothing: its datagrams are lost as on any network.
  const onGone = () => {};
  const front = new Channel(udpName(child.itsParent), udpName(child.child), {
    onDatagram: (data, fds) => back.send(data, fds),
    onGone,
    onError,
  });
  let back: Channel;
  try {
    back = new Channel(udpName(parent.itsChild), udpName(parent.parent), {
      onDatagram(data, fds) {
        passed++;
        if (front.backlog < MAX_BACKLOG) front.send(data, fds);
        else for (const fd of fds) close(fd);
      },
      onGone,
      onError,
    });
  } catch (error) {
    front.close();
    throw error;
  }
  return {
    get passed() {
      return passed;
    },
    close() {
      front.close();
      back.close();
    },
  };
}
