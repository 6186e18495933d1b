import { absorbReplies, clearInitializing } from '../broker/index.ts';
import { bringUp, type Predecessor, socketPath } from '../epochs/handover.ts';
import { besideQuic, endRelay, hasQuic, relayQuic } from '../epochs/quic.ts';
import { keepListeners } from '../keeper/kept.ts';
import { hotRestartChecks } from '../preflight/hot-restart.ts';
import { listenAddressesOf } from '../witnesses/kernel.ts';
import type { HandoverMethod } from './types.ts';

/** Envoy's own hot restart with the broker between the epochs (broker/): the listen sockets themselves pass on. */
export const hotRestart: HandoverMethod = {
  name: 'hot-restart',

  check: hotRestartChecks,

  line: ({ baseId, restartEpoch }) => ({ baseId, restartEpoch: restartEpoch + 1, hotRestart: true }),

  async handOver({ context, old, start }) {
    await keepListeners(context, old);
    const { plan } = start;
    const child = { epoch: plan.restartEpoch, socketPath: socketPath(plan.baseId, plan.folder.epoch) };
    const quic = await hasQuic(old);
    if (quic) await relayQuic(old, child, context.log);
    const predecessor: Predecessor = {
      kind: 'live',
      party: old.party,
      number: old.number,
      // With an admin address of its own per epoch nobody has to close one; a fixed one must pass on.
      originalStart: old.meta.lineStartedAt ?? old.meta.startedAt,
      // drain_listeners without `graceful`: they stop, and nobody is told; that is for the drain (source/server/admin,
      // listeners_handler.cc).
      // With QUIC the request itself is needed: only by it does the parent pass its child's packets on. Envoy's own drain
      // begins with it, so policy's pace is not kept: preflight/policy.ts.
      ...(quic
        ? { bindsBeside: (fd: number) => besideQuic(fd, plan.concurrency) }
        : { stopListeners: () => old.admin.post('/drain_listeners') }),
      ownAdmin: old.meta.adminAddress.startsWith('/') && start.plan.adminAddress !== old.meta.adminAddress,
    };
    try {
      return await bringUp({ ...start, predecessor });
    } catch (error) {
      await endRelay(old);
      throw error;
    }
  },

  /**
   * The new epoch may not accept yet: it waits for a broker that is gone, and is killed; the old one may then be trying
   * to answer that broker, and is heard out, or it aborts as well. When it accepts, the old one was told to drain.
   */
  async settle({ context, starting, old }) {
    const oldAccepts =
      old !== undefined && listenAddressesOf(old.process.pid).some((address) => address !== old.meta.adminAddress);
    if (!oldAccepts && listenAddressesOf(starting.process.pid).length > 0) return true;
    await starting.kill();
    clearInitializing(starting.meta.baseId);
    if (old) {
      await endRelay(old);
      await absorbReplies({ baseId: old.meta.baseId, envoy: old.party, signal: context.signal });
    }
    return false;
  },
};
