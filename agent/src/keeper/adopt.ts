import { absorbReplies, clearInitializing, playParent } from '../broker/index.ts';
import { Epoch } from '../epochs/epoch.ts';
import { isAlive, signal } from '../epochs/proc.ts';
import { listenAddressesOf } from '../witnesses/kernel.ts';
import type { KeeperContext } from './context.ts';
import type { Drains } from './drains.ts';
import { keepListeners } from './kept.ts';

/**
 * Finds the epochs that an earlier agent of this slot left running, and goes on where it stopped. The one hard case is an
 * agent that died in the middle of a handover:
 *   - the new epoch does not accept yet: it waits for a broker that is gone. It is killed; the old one serves.
 *   - the new epoch accepts already, the old one was told to drain: only the terminate request is outstanding. Somebody
 *     must swallow it, or the new epoch aborts 10-15 s later (envoy-facts 2).
 * In the first case the old epoch may be trying to answer the broker that is gone: it is heard out, or it aborts as well.
 */
export async function adopt(context: KeeperContext, drains: Drains, watch: (epoch: Epoch) => void): Promise<void> {
  const { registry, log } = context;
  for (const folder of registry.folders()) {
    const meta = folder.readMeta();
    if (!meta || meta.state === 'ended' || !isAlive({ pid: meta.pid, startTime: meta.startTime })) continue;
    registry.add(new Epoch(folder, meta, log));
    log('info', 'epoch adopted', { epoch: meta.epoch, state: meta.state, version: meta.version, pid: meta.pid });
  }
  for (const starting of registry.all().filter((e) => e.meta.state === 'starting')) await settle(context, starting);
  for (const epoch of registry.all()) {
    // Epoch 0 has no parent, and asks for nothing.
    if (epoch.meta.restartEpoch > 0 && epoch.meta.independentAt === undefined) await swallowTerminate(context, epoch);
  }

  const [newest, ...older] = registry
    .all()
    .filter((e) => e.meta.state === 'serving')
    .reverse();
  for (const old of older) old.update({ state: 'draining', drainingSince: context.now() });
  for (const old of registry.draining()) {
    const successor = registry.all().find((e) => e.meta.parent === old.number);
    drains.begin(old, old.meta.endedBy ?? successor?.meta.createdBy ?? '', old.meta.policy ?? context.config.policy);
  }
  if (!newest) return;
  for (const epoch of registry.all()) watch(epoch);
  await keepListeners(context, newest);
}

async function settle(context: KeeperContext, starting: Epoch): Promise<void> {
  const { registry, log } = context;
  const parent = starting.meta.parent === undefined ? undefined : registry.get(starting.meta.parent);
  const parentAccepts =
    parent !== undefined && listenAddressesOf(parent.process.pid).some((a) => a !== parent.meta.adminAddress);
  if (parentAccepts || listenAddressesOf(starting.process.pid).length === 0) {
    log('warn', 'epoch that did not serve is given up', { epoch: starting.number });
    signal(starting.process, 'SIGKILL');
    await starting.kill();
    registry.remove(starting);
    clearInitializing(starting.meta.baseId);
    if (parent) await absorbReplies({ baseId: parent.meta.baseId, envoy: parent.party, signal: context.signal });
    return;
  }
  starting.update({ state: 'serving', servingSince: context.now() });
  parent?.update({ state: 'draining', drainingSince: context.now() });
}

/** In the place of the broker that an earlier agent took with it. Harmless when the request has been made already. */
async function swallowTerminate(context: KeeperContext, epoch: Epoch): Promise<void> {
  const { kept, log, signal } = context;
  const handover = await playParent({ baseId: epoch.meta.baseId, child: epoch.party, kept, signal });
  handover.independent.then(
    ({ at }) => {
      epoch.update({ independentAt: at });
      log('info', 'handover finished in the place of an earlier agent', { epoch: epoch.number });
    },
    () => {},
  );
}
