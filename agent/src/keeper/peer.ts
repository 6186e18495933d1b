import { SluiceError } from '@sluice/contract';
import { createPeerServer, PEER_PROTOCOL, type Served, type Step } from '../handoff/peer.ts';
import { lastReserved } from '../handoff/reserve.ts';
import { currentVersions } from '../handoff/sidecarset.ts';
import { readSurroundings } from '../preflight/shared.ts';
import { udpAddressesOf } from '../witnesses/udp.ts';
import type { KeeperContext } from './context.ts';
import type { Drains } from './drains.ts';
import { readServing, sampleBefore } from './load.ts';

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
          busy: context.exclusive.busy,
          ...(versions && { version: versions.own }),
          ...(serving && {
            serving: { ...serving.meta },
            udp: udpAddressesOf(serving.process.pid, serving.meta.listenAddresses ?? []),
          }),
        };
      },
      step: (step, message) => follow(context, drains, step, message),
      load: () => readServing(context),
    },
    log,
  );
}

/** `taking` may be refused: UPGRADE_CONFLICT while this agent is about to change what serves, or has. */
async function follow(context: KeeperContext, drains: Drains, step: Step, message: Served): Promise<void> {
  const { config, registry, kept, log, standing } = context;
  const { epoch, from, upgradeId, slot = 'other' } = message;
  const old = registry.get(from);
  const serving = old?.meta.state === 'serving';
  log('info', 'the peer takes over', { step, epoch, from, slot, serving });
  switch (step) {
    case 'taking':
      if (!serving || context.exclusive.busy) {
        const found = serving ? 'another start under way' : 'that it does not serve here';
        throw new SluiceError('UPGRADE_CONFLICT', `expected epoch ${from} to be taken over, found ${found}`);
      }
      sampleBefore(context, old);
      standing.set({ taking: upgradeId, peer: slot });
      void holdStarts(context);
      return;
    case 'stop':
      // Without `graceful`: they stop, and nobody is told; that is for the drain (see methods/hot-restart.ts).
      if (serving) await old.admin.post('/drain_listeners');
      return;
    case 'served':
      kept.closeAll(); // the peer keeps them now; two keepers would hold what neither serves
      if (serving) drains.begin(old, upgradeId, config.policy);
      return standing.set({ taking: undefined, handedTo: { epoch, slot } });
    case 'gave-up':
      return standing.set({ taking: undefined });
  }
}

/** Beyond the peer's own bound of its start, for one that went without a word. */
const WORDLESS_MS = 10_000;

/** While the peer takes over nothing is started here: no upgrade, and no relaunch of what may be replaced in a moment. */
async function holdStarts({ config, exclusive, signal, standing, log }: KeeperContext): Promise<void> {
  const bound = AbortSignal.any([signal, AbortSignal.timeout(config.startTimeoutMs + WORDLESS_MS)]);
  await exclusive
    .run(() => standing.until(() => standing.facts.taking === undefined || undefined, bound))
    .catch((error: unknown) => {
      log('warn', 'the peer went without a word', { error: String(error) });
      standing.set({ taking: undefined });
    });
}
