import { createPeerServer, PEER_PROTOCOL, type Served, type Step } from '../handoff/peer.ts';
import { lastReserved } from '../handoff/reserve.ts';
import { currentVersions } from '../handoff/sidecarset.ts';
import { readSurroundings } from '../preflight/shared.ts';
import { udpAddressesOf } from '../witnesses/udp.ts';
import type { KeeperContext } from './context.ts';
import type { Drains } from './drains.ts';

/** Answers the agent of the other slot: which epoch serves here, and its steps as it takes over from it. */
export async function openPeer(context: KeeperContext, drains: Drains): Promise<{ close(): Promise<void> }> {
  const { config, registry, log } = context;
  const { shared } = config;
  if (shared === undefined) return { close: async () => {} };
  return createPeerServer(
    shared,
    config.slot,
    {
      state() {
        const serving = registry.serving();
        const versions = currentVersions(process.env, config.podinfo);
        return {
          v: PEER_PROTOCOL,
          proxy: config.proxy,
          slot: config.slot,
          nextEpoch: Math.max(lastReserved(shared), registry.folders().at(-1)?.epoch ?? -1) + 1,
          surroundings: readSurroundings(),
          ...(versions && { version: versions.own }),
          ...(serving && {
            serving: { ...serving.meta },
            udp: udpAddressesOf(serving.process.pid, serving.meta.listenAddresses ?? []),
          }),
        };
      },
      step: (step, message) => follow(context, drains, step, message),
    },
    log,
  );
}

/** A step about an epoch that does not serve here is an old one: nothing to do. */
async function follow(context: KeeperContext, drains: Drains, step: Step, message: Served): Promise<void> {
  const { config, registry, kept, log, standing } = context;
  const { epoch, from, upgradeId, slot = 'other' } = message;
  const old = registry.get(from);
  log('info', 'the peer takes over', { step, epoch, from, slot });
  if (old?.meta.state !== 'serving') return;
  switch (step) {
    case 'taking':
      return standing.set({ taking: upgradeId, peer: slot });
    case 'stop':
      // Without `graceful`: they stop, and nobody is told; that is for the drain (see methods/hot-restart.ts).
      await old.admin.post('/drain_listeners');
      return;
    case 'served':
      kept.closeAll(); // the peer keeps them now; two keepers would hold what neither serves
      drains.begin(old, upgradeId, config.policy);
      return standing.set({ taking: undefined, handedTo: { epoch, slot } });
    case 'gave-up':
      return standing.set({ taking: undefined });
  }
}
