import { playParent } from '../broker/index.ts';
import { Epoch } from '../epochs/epoch.ts';
import { isAlive } from '../epochs/proc.ts';
import { hasQuic, relayQuicOn } from '../epochs/quic.ts';
import { ENVOY_METHODS, methodNamed } from '../methods/index.ts';
import { accepts } from '../methods/reuse-port/plain.ts';
import { asOthers } from '../native/sched.ts';
import type { KeeperContext } from './context.ts';
import type { Drains } from './drains.ts';
import { keepListeners, unsteerKept } from './kept.ts';
import { sweepSharedMemory } from './sweep.ts';

/**
 * Finds the epochs that an earlier agent of this slot left running, and goes on where it stopped. The one hard case is an
 * agent that died in the middle of a handover: the method settles which of the two serves (methods/). After a hot restart
 * whose terminate request is outstanding somebody must swallow it, or the new epoch aborts 10-15 s later (envoy-facts 2).
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
    // Its packets have nobody else to go to, and it aborts when they find nobody.
    if (successor && (await hasQuic(old))) await relayQuicOn(old, successor.party, log);
    drains.begin(old, old.meta.endedBy ?? successor?.meta.createdBy ?? '', old.meta.policy ?? context.config.policy);
  }
  sweepSharedMemory(context);
  // The earlier agent may have died before it did this.
  for (const epoch of registry.all()) asOthers(epoch.process.pid);
  if (!newest) return;
  for (const epoch of registry.all()) watch(epoch);
  await keepListeners(context, newest);
  // One that could not be told to stop is still steered around.
  if (!registry.draining().some(accepts)) unsteerKept(context);
}

async function settle(context: KeeperContext, starting: Epoch): Promise<void> {
  const { registry, log } = context;
  const old = starting.meta.parent === undefined ? undefined : registry.get(starting.meta.parent);
  const method = methodNamed(ENVOY_METHODS, starting.meta.method ?? 'hot-restart');
  if (await method.settle({ context, starting, old })) {
    starting.update({ state: 'serving', servingSince: context.now() });
    old?.update({ state: 'draining', drainingSince: context.now() });
    return;
  }
  log('warn', 'epoch that did not serve is given up', { epoch: starting.number });
  registry.remove(starting);
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
