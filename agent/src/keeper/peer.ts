import { SluiceError } from '@sluice/contract';
import { absorbReplies } from '../broker/index.ts';
import type { Epoch } from '../epochs/epoch.ts';
import { createPeerServer, NONE, PEER_PROTOCOL, peerSocket, type Served, type Step } from '../handoff/peer.ts';
import { lastReserved } from '../handoff/reserve.ts';
import { currentVersions } from '../handoff/sidecarset.ts';
import { readSurroundings } from '../preflight/shared.ts';
import { answers } from '../status/unix-listen.ts';
import { NO_UDP, udpListeners } from '../witnesses/listener-kinds.ts';
import { udpAddressesOf } from '../witnesses/udp.ts';
import { lingeringOf } from './budget.ts';
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
      async state() {
        const serving = registry.serving();
        const versions = currentVersions(process.env, config.podinfo);
        // Who asks may be about to take over: by its first step there is a tenth of a second left.
        if (serving) sampleBefore(context, serving);
        return {
          v: PEER_PROTOCOL,
          proxy: config.proxy,
          slot: config.slot,
          nextEpoch: Math.max(lastReserved(shared), registry.folders().at(-1)?.epoch ?? -1) + 1,
          surroundings: readSurroundings(),
          busy: context.exclusive.busy,
          lingering: lingeringOf(context),
          ...(versions && { version: versions.own }),
          ...(serving && {
            serving: { ...serving.meta },
            udp: await udpOf(serving),
          }),
        };
      },
      step: (step, message) => follow(context, drains, step, message),
      load: () => readServing(context),
    },
    log,
  );
}

/** What listens by UDP, QUIC or not: two slots can not pass it on. By its sockets too, where the configuration can not be read. */
async function udpOf(epoch: Epoch): Promise<string[]> {
  const { quic, other } = await udpListeners(epoch).catch(() => NO_UDP);
  const held = udpAddressesOf(epoch.process.pid, epoch.meta.listenAddresses ?? []);
  return [...new Set([...quic.addresses, ...other, ...held])];
}

/** Slot of an older agent, which does not tell it. */
const OTHER = 'other';

/** `taking` may be refused: UPGRADE_CONFLICT while this agent is about to change what serves, or has. */
async function follow(context: KeeperContext, drains: Drains, step: Step, message: Served): Promise<void> {
  const { config, registry, kept, log, standing } = context;
  const { epoch, from, upgradeId, slot = OTHER } = message;
  const old = registry.get(from);
  const serving = old?.meta.state === 'serving';
  log('info', 'the peer takes over', { step, epoch, from, slot, serving });
  switch (step) {
    case 'taking': {
      // A slot has one agent: the one that asked before is dead, and what is held is held for this one.
      const again = standing.facts.taking !== undefined && standing.facts.peer === slot;
      if (!serving || (context.exclusive.busy && !again)) {
        const found = serving ? 'another start under way' : 'that it does not serve here';
        throw new SluiceError('UPGRADE_CONFLICT', `expected epoch ${from} to be taken over, found ${found}`);
      }
      sampleBefore(context, old);
      standing.set({ taking: upgradeId, peer: slot });
      if (!again) void holdStarts(context);
      return;
    }
    case 'stop':
      // Without `graceful`: they stop, and nobody is told; that is for the drain (see methods/hot-restart.ts).
      if (serving) await old.admin.post('/drain_listeners');
      return;
    case 'served':
      kept.closeAll(); // the peer keeps them now; two keepers would hold what neither serves
      if (serving) drains.begin(old, upgradeId, config.policy);
      if (from === NONE) await giveWay(context, drains, upgradeId);
      return standing.set({ taking: undefined, handedTo: { epoch, slot } });
    case 'gave-up':
      if (standing.facts.taking === upgradeId) standing.set({ taking: undefined });
      return;
  }
}

/** The peer waited in vain for what serves here after all. */
async function giveWay({ registry, config, log }: KeeperContext, drains: Drains, upgradeId: string): Promise<void> {
  const late = registry.serving();
  if (!late) return;
  await late.admin.post('/drain_listeners').catch((error: unknown) => {
    log('warn', 'listeners could not be drained', { error: String(error) });
  });
  drains.begin(late, upgradeId, config.policy);
}

/** Beyond the peer's own bound of its start, for one that lives and never says a word. */
const WORDLESS_MS = 10_000;
const LOOK_MS = 1_000;

/** While the peer takes over nothing is started here: no upgrade, and no relaunch of what may be replaced in a moment. */
async function holdStarts(context: KeeperContext): Promise<void> {
  const { config, exclusive, signal, standing, log } = context;
  let silent = false;
  const wentSilent = (why: string): void => {
    silent = true;
    log('warn', 'the peer went without a word', { error: why });
    standing.set({ taking: undefined });
  };
  const look = setInterval(async () => {
    if (await peerHasEnded(context)) wentSilent('its agent has ended');
  }, LOOK_MS);
  await exclusive.run(async () => {
    try {
      for (let taking = standing.facts.taking; taking !== undefined; taking = standing.facts.taking) {
        const bound = AbortSignal.any([signal, AbortSignal.timeout(config.startTimeoutMs + WORDLESS_MS)]);
        const held = taking;
        await standing.until(() => standing.facts.taking !== held || undefined, bound);
      }
    } catch (error) {
      wentSilent(String(error));
    } finally {
      clearInterval(look);
    }
    if (silent && !signal.aborted) await hearOut(context);
  });
}

/** A container that is killed says nothing: its agent's socket does. */
async function peerHasEnded({ config, standing }: KeeperContext): Promise<boolean> {
  const { taking, peer } = standing.facts;
  // An older agent does not tell its slot.
  if (config.shared === undefined || taking === undefined || peer === undefined || peer === OTHER) return false;
  return !(await answers(peerSocket(config.shared, peer))) && standing.facts.taking === taking;
}

/** The broker ended with the peer: an answer to it that finds nobody ends the Envoy that serves here (broker/ask.ts). */
async function hearOut({ registry, signal, log }: KeeperContext): Promise<void> {
  const serving = registry.serving();
  if (!serving) return;
  const { baseId } = serving.meta;
  await absorbReplies({ baseId, envoy: serving.party, signal }).catch((error: unknown) => {
    log('warn', 'the broker of the peer can not be stood in for', { error: String(error) });
  });
}
