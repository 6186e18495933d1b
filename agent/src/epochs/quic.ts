import { type Party, relayUdp, type UdpRelay } from '../broker/index.ts';
import type { Log } from '../log.ts';
import { udpAddressesOf } from '../witnesses/udp.ts';
import type { Epoch } from './epoch.ts';

/** Whether the epoch holds UDP sockets that pass on: preflight lets only QUIC listeners come so far. */
export function hasQuic(epoch: Epoch): boolean {
  return udpAddressesOf(epoch.process.pid, epoch.meta.listenAddresses ?? []).length > 0;
}

/**
 * Passes the packets of its child's QUIC connections on until the old epoch has ended. When it can not, the handover would
 * end the old epoch within seconds (broker/udp.ts): then it throws, and nothing is touched.
 */
export function relayQuic(old: Epoch, child: Party, log: Log): UdpRelay {
  const relay = relayUdp({
    baseId: old.meta.baseId,
    parent: old.party,
    child,
    onError: (error) => log('warn', 'a QUIC packet was not passed on', { epoch: old.number, error: String(error) }),
  });
  void old.gone.then(() => {
    relay.close();
    log('debug', 'QUIC packets passed on to the next epoch', { epoch: old.number, packets: relay.passed });
  });
  return relay;
}
