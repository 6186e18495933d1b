import { SluiceError, toSluiceError } from '@sluice/contract';
import type { Epoch } from '../epochs/epoch.ts';
import { bringUp, type Predecessor, type StartOptions } from '../epochs/handover.ts';
import { takeLock } from '../handoff/lock.ts';
import { type Mine, negotiate, outcomeOf } from '../handoff/negotiate.ts';
import { findPeer, NONE, type PeerEpoch, type PeerState, type Served, type Step, tellPeer } from '../handoff/peer.ts';
import { lastReserved } from '../handoff/reserve.ts';
import { currentVersions } from '../handoff/sidecarset.ts';
import { notShared, strangers } from '../preflight/shared.ts';
import { bring } from './bring.ts';
import { resolveBinary } from './config.ts';
import { announceEpochs, type KeeperContext } from './context.ts';
import { keepListeners } from './kept.ts';
import { firstLine, planEpoch } from './plan.ts';
import { checkShared, checkTakeOver } from './take-over-checks.ts';

/** The old agent may be busy; by then its listeners have stopped, so it must hear of it. */
const TELL_TRIES = 5;

/**
 * What a keeper that adopted nothing starts with: a first epoch, or one that takes over from the agent of the other slot,
 * or nothing, when that one is the newer.
 */
export async function boot(context: KeeperContext, watch: (epoch: Epoch) => void): Promise<void> {
  const { config } = context;
  const { shared } = config;
  if (shared === undefined) return firstEpoch(context, watch);
  const deadline = context.now() + config.peerWaitMs;
  for (let wait = 50; ; wait = Math.min(wait * 2, 1_000)) {
    const versions = currentVersions(process.env, config.podinfo);
    const mine = { slot: config.slot, ...(versions && { versions }) };
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
    if (peer) checkShared(peer.state);
    else if (!noStranger(context, shared, last)) return false;
    const decided = negotiate(mine, peer?.state, lastReserved(shared) + 1);
    context.log('info', 'epoch negotiated', { ...decided, peer: peer?.state.slot });
    context.standing.set({ role: decided.role, peer: peer?.state.slot });
    switch (outcomeOf(decided, peer?.state, last)) {
      case 'stay':
        return true;
      case 'again':
        return false;
      case 'take-over':
        // The role is that of a peer that serves.
        if (!peer?.state.serving) return false;
        return await takeOver(context, watch, { path: peer.path, state: peer.state, from: peer.state.serving }, last);
      case 'start':
        await firstEpoch(context, watch);
        // Unless it was waited for in vain.
        context.standing.set({ role: 'first' });
        if (peer?.state.busy) await replace(context, peer.path);
        return true;
    }
  } finally {
    await lock.release();
  }
}

/**
 * False while an Envoy of this base id lives in our network whose agent does not answer in the shared folder: it may be
 * starting. Throws PREFLIGHT_SHARED_FOLDER when it never came: two that accept side by side would share the connections.
 */
function noStranger({ config, registry }: KeeperContext, shared: string, last: boolean): boolean {
  const others = strangers(
    config.baseId,
    registry.all().map(({ number }) => number),
  );
  if (others.length === 0) return true;
  if (!last) return false;
  throw notShared(config.baseId, shared, others);
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

/**
 * The peer's Envoy crashes and crashes, and this agent's serves instead: another try of it, and the sockets that it keeps for that,
 * would take a share of the connections.
 */
async function replace(context: KeeperContext, path: string): Promise<void> {
  const { config, registry, now } = context;
  const serving = registry.serving();
  if (!serving) return;
  const upgradeId = `slot-${config.slot}-${now().toString(36)}`;
  const message: Served = { epoch: serving.number, from: NONE, upgradeId, slot: config.slot };
  await insist(context, () => tellPeer(path, 'served', message));
}

/** False when the peer is about to change what it serves: to be negotiated anew. */
async function takeOver(
  context: KeeperContext,
  watch: (epoch: Epoch) => void,
  peer: { readonly path: string; readonly state: PeerState; readonly from: PeerEpoch },
  last: boolean,
): Promise<boolean> {
  const { from } = peer;
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
  await checkTakeOver(context, peer.state, plan);
  const message: Served = { epoch: plan.folder.epoch, from: from.epoch, upgradeId, slot: config.slot };
  const tell = (step: Step): Promise<void> => tellPeer(peer.path, step, message);
  const predecessor: Predecessor = {
    kind: 'live',
    // No pid: the peer may live in another PID namespace.
    party: { epoch: from.restartEpoch, socketPath: from.socketPath },
    number: from.epoch,
    // Its own agent does it, which can reach its admin; an older agent refuses, and the request is relayed.
    stopListeners: () => tell('stop'),
    ...(from.startedAt !== undefined && { originalStart: from.lineStartedAt ?? from.startedAt }),
    ownAdmin: from.adminAddress.startsWith('/') && plan.adminAddress !== from.adminAddress,
  };
  const start = (options: StartOptions) => bringUp({ ...options, predecessor });
  // An older agent does not know this step: it only keeps its end waiting for this start.
  try {
    await tell('taking');
  } catch (thrown) {
    const error = toSluiceError(thrown);
    log('info', 'the peer does not wait', { code: error.code, error: error.message });
    if (error.code === 'UPGRADE_CONFLICT') {
      if (last) throw error;
      return false;
    }
  }
  const { epoch, independent, servingAt } = await bring(context, { plan, start, watch }).catch(
    async (error: unknown) => {
      await tell('gave-up').catch(() => {});
      throw error;
    },
  );
  announceEpochs(context);
  log('info', 'took over from the peer', { epoch: epoch.number, from: from.epoch, version: epoch.meta.version });
  context.send({
    type: 'serving',
    upgradeId,
    epoch: epoch.number,
    oldEpoch: from.epoch,
    oldSlot: peer.state.slot,
    from: from.version,
    to: epoch.meta.version,
    at: servingAt,
    method: 'hot-restart',
  });
  await insist(context, () => tell('served'));
  await independent.catch((error: unknown) => log('warn', 'handover not finished', { error: String(error) }));
  await keepListeners(context, epoch);
  return true;
}

/** A peer that never hears it is gone, with its epoch; or else its log and ours say so. */
async function insist({ log, signal }: KeeperContext, tell: () => Promise<void>): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await tell();
    } catch (error) {
      log('warn', 'the peer was not told that this agent serves', { tries, error: String(error) });
      if (tries === TELL_TRIES || signal.aborted) return;
    }
    await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** tries));
  }
}
