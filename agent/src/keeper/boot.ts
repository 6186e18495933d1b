import { SluiceError } from '@sluice/contract';
import type { Epoch } from '../epochs/epoch.ts';
import { bringUp, type Predecessor, type StartOptions } from '../epochs/handover.ts';
import { takeLock } from '../handoff/lock.ts';
import { type Mine, negotiate } from '../handoff/negotiate.ts';
import { findPeer, type PeerEpoch, tellServed } from '../handoff/peer.ts';
import { lastReserved } from '../handoff/reserve.ts';
import { readSidecarsetVersions } from '../handoff/sidecarset.ts';
import { bring } from './bring.ts';
import { resolveBinary } from './config.ts';
import { announceEpochs, type KeeperContext } from './context.ts';
import { keepListeners } from './kept.ts';
import { firstLine, planEpoch } from './plan.ts';

/** How long an agent whose versions say "upgrade" waits for the peer that is to hand over. */
const PEER_WAIT_MS = 30_000;

/**
 * What a keeper that adopted nothing starts with: a first epoch, or one that takes over from the agent of the other slot,
 * or nothing, when that one is the newer.
 */
export async function boot(context: KeeperContext, watch: (epoch: Epoch) => void): Promise<void> {
  const { config } = context;
  const { shared } = config;
  if (shared === undefined) return firstEpoch(context, watch);
  const versions = readSidecarsetVersions(process.env);
  const mine = { slot: config.slot, ...(versions && { versions }) };
  const deadline = context.now() + PEER_WAIT_MS;
  for (let wait = 50; ; wait = Math.min(wait * 2, 1_000)) {
    if (await decide(context, watch, mine, shared, context.now() > deadline)) return;
    await new Promise((resolve) => setTimeout(resolve, wait));
    context.signal.throwIfAborted();
  }
}

/** One round of the negotiation; true when this agent has its place. */
async function decide(
  context: KeeperContext,
  watch: (epoch: Epoch) => void,
  mine: Mine,
  shared: string,
  last: boolean,
): Promise<boolean> {
  // One agent at a time: of two that start at once the second then finds the first one's epoch serving.
  const lock = await takeLock(shared, 'boot').catch((error: unknown) => {
    if (error instanceof SluiceError && error.code === 'SLOT_TAKEN') return undefined;
    throw error;
  });
  if (!lock) return false;
  try {
    const peer = await findPeer(shared, mine.slot);
    const decided = negotiate(mine, peer?.state, lastReserved(shared) + 1);
    context.log('info', 'epoch negotiated', { ...decided, peer: peer?.state.slot });
    if (decided.role === 'standby') return true;
    if (decided.role === 'new' && peer?.state.serving) await takeOver(context, watch, peer.path, peer.state.serving);
    // The peer that was to hand over never came: nobody serves, so this one must.
    else if (decided.role === 'first' || last) await firstEpoch(context, watch);
    else return false;
    return true;
  } finally {
    await lock.release();
  }
}

async function firstEpoch(context: KeeperContext, watch: (epoch: Epoch) => void): Promise<void> {
  const { config, log } = context;
  const plan = await planEpoch(context, {
    binary: resolveBinary(config.envoy, config.envoys),
    bootstrap: config.bootstrap,
    concurrency: config.concurrency,
    line: () => firstLine(context),
  });
  const start = (options: StartOptions) => bringUp({ ...options, predecessor: { kind: 'none' } });
  const { epoch } = await bring(context, { plan, start, watch });
  announceEpochs(context);
  await keepListeners(context, epoch);
  log('info', 'first epoch serves', { epoch: epoch.number, version: epoch.meta.version, pid: epoch.process.pid });
}

async function takeOver(
  context: KeeperContext,
  watch: (epoch: Epoch) => void,
  peer: string,
  from: PeerEpoch,
): Promise<void> {
  const { config, log } = context;
  if (from.hotRestart === false || !config.hotRestart) {
    const who = config.hotRestart ? 'the peer' : 'this agent';
    throw new SluiceError('PREFLIGHT_HOT_RESTART_OFF', `expected hot restart between two slots, found ${who} without`);
  }
  const upgradeId = `slot-${config.slot}-${context.now().toString(36)}`;
  const plan = await planEpoch(context, {
    binary: resolveBinary(config.envoy, config.envoys),
    bootstrap: config.bootstrap,
    concurrency: from.concurrency, // pinned: accept queues are per worker
    line: () => ({ baseId: from.baseId, restartEpoch: from.restartEpoch + 1, hotRestart: true }),
    method: 'hot-restart',
    upgradeId,
  });
  const predecessor: Predecessor = {
    kind: 'live',
    // No pid: the peer may live in another PID namespace.
    party: { epoch: from.restartEpoch, socketPath: from.socketPath },
    number: from.epoch,
    ownAdmin: from.adminAddress.startsWith('/') && plan.adminAddress !== from.adminAddress,
  };
  const start = (options: StartOptions) => bringUp({ ...options, predecessor });
  const { epoch, independent } = await bring(context, { plan, start, watch });
  announceEpochs(context);
  log('info', 'took over from the peer', { epoch: epoch.number, from: from.epoch, version: epoch.meta.version });
  await tellServed(peer, { epoch: epoch.number, from: from.epoch, upgradeId });
  await independent.catch((error: unknown) => log('warn', 'handover not finished', { error: String(error) }));
  await keepListeners(context, epoch);
}
