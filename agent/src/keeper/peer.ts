import { createPeerServer, PEER_PROTOCOL } from '../handoff/peer.ts';
import { lastReserved } from '../handoff/reserve.ts';
import { readSidecarsetVersions } from '../handoff/sidecarset.ts';
import type { KeeperContext } from './context.ts';
import type { Drains } from './drains.ts';

/** Answers the agent of the other slot: which epoch serves here, and "I accept now, drain yours". */
export async function openPeer(context: KeeperContext, drains: Drains): Promise<{ close(): Promise<void> }> {
  const { config, registry, kept, log } = context;
  const { shared } = config;
  if (shared === undefined) return { close: async () => {} };
  const versions = readSidecarsetVersions(process.env);
  return createPeerServer(
    shared,
    config.slot,
    {
      state() {
        const serving = registry.serving();
        return {
          v: PEER_PROTOCOL,
          proxy: config.proxy,
          slot: config.slot,
          nextEpoch: Math.max(lastReserved(shared), registry.folders().at(-1)?.epoch ?? -1) + 1,
          ...(versions && { version: versions.own }),
          ...(serving && { serving: { ...serving.meta } }),
        };
      },
      async served({ epoch, from, upgradeId }) {
        const old = registry.get(from);
        log('info', 'the peer serves', { epoch, from });
        if (old?.meta.state !== 'serving') return;
        kept.closeAll(); // the peer keeps them now; two keepers would hold what neither serves
        // The peer's upgrade has no record at the controller: this agent gives the order and decides, by the same verdict.
        drains.begin(old, upgradeId, config.policy, { alone: true });
      },
    },
    log,
  );
}
