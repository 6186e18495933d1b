import type { Epoch } from '../../epochs/epoch.ts';
import { bringUp, type Predecessor } from '../../epochs/handover.ts';
import { derivedBaseId } from '../../keeper/config.ts';
import { keepListeners } from '../../keeper/kept.ts';
import { reusePortChecks, steeringOf } from '../../preflight/reuse-port.ts';
import type { HandoverMethod, HandoverRequest, SettleRequest } from '../types.ts';
import { ListenGroups } from './groups.ts';
import { accepts, takeOverPlainly } from './plain.ts';
import { takeOver } from './takeover.ts';

/**
 * Two Envoys that know nothing of each other on the same SO_REUSEPORT addresses: for another hot restart version, or
 * where hot restart is switched off.
 */
export const reusePort: HandoverMethod = {
  name: 'reuse-port',

  check: (subject) => reusePortChecks(subject),

  // A line of its own: nothing of the old epoch's shared memory is touched.
  line: ({ baseId }, { epoch, hotRestart }) => ({ baseId: derivedBaseId(baseId, epoch), restartEpoch: 0, hotRestart }),

  async handOver(request) {
    const { context, old, start } = request;
    await keepListeners(context, old);
    const steering = await steeringOf(old.process.pid);
    if (steering.why === undefined) return steered(request);
    context.log('info', 'new connections are not steered', { ...steering });
    return bringUp({ ...start, predecessor: beside(old, (epoch) => takeOverPlainly(context, old, epoch)) });
  },

  /**
   * Both live, and both may accept. Before the flip nothing was steered to the new epoch: it is killed. After it, what is
   * left to do is done. The program outlives the agent that attached it, so that new connections went on to the one
   * that they were steered to; only the dups are gone with it.
   */
  async settle(request) {
    const { context, starting, old } = request;
    const warn = (error: unknown) =>
      context.log('warn', 'steering of an earlier agent not undone', { epoch: starting.number, error: String(error) });
    if (starting.meta.steered) {
      await finish(request).catch(warn);
      return true;
    }
    await starting.kill();
    if (old) await undoSteering(old).catch(warn);
    return false;
  },
};

async function steered({ context, old, start }: HandoverRequest) {
  const groups = await ListenGroups.of(old);
  try {
    groups.hold();
    context.log('debug', 'steering: to the old epoch', { old: old.number });
    return await bringUp({
      ...start,
      predecessor: beside(old, (epoch) => takeOver({ context, groups, old, epoch })),
    });
  } catch (error) {
    // The new one is dead by now: nothing is left to steer between.
    groups.release();
    throw error;
  }
}

async function finish({ context, starting, old }: SettleRequest): Promise<void> {
  if (!old || !accepts(old)) return undoSteering(starting);
  const groups = await ListenGroups.of(old);
  try {
    await takeOver({ context, groups, old, epoch: starting });
  } catch (error) {
    groups.release();
    throw error;
  }
}

function beside(old: Epoch, takeOver: (epoch: Epoch) => Promise<void>): Predecessor {
  return { kind: 'beside', number: old.number, takeOver };
}

async function undoSteering(epoch: Epoch): Promise<void> {
  const groups = await ListenGroups.of(epoch);
  groups.release();
}
