import { DEFAULT_POLICY } from '@sluice/contract';
import { isAlive } from '../../epochs/proc.ts';
import type { CommandContext } from './context.ts';
import type { Drains } from './drains.ts';
import { CommandEpoch } from './epoch.ts';
import { listenFd } from './method.ts';
import { HeldSockets } from './sockets.ts';

/**
 * Takes over what an earlier agent of this run folder left running. One that was only starting is killed: the one before
 * it accepts. When two say that they serve, the newer one does, and the older one is stopped: the agent died between
 * the two. The sockets come out of the serving process. Returns whether one serves.
 */
export async function adopt(context: CommandContext, drains: Drains): Promise<boolean> {
  const { config, registry, spec, log } = context;
  for (const folder of registry.folders()) {
    const meta = folder.readMeta();
    if (!meta || meta.state === 'ended' || meta.state === 'crashed') continue;
    if (!isAlive(meta)) {
      folder.writeMeta({ ...meta, state: meta.state === 'draining' ? 'ended' : 'crashed' });
      continue;
    }
    const epoch = new CommandEpoch(folder, meta, { log, endSignal: spec.endSignal });
    log('info', 'epoch adopted', { epoch: epoch.number, state: meta.state, pid: meta.pid });
    if (meta.state !== 'starting' || (await listenFd.settle({ context, starting: epoch, old: undefined }))) {
      registry.add(epoch);
    }
  }
  const serving = registry.serving();
  if (serving) context.sockets = HeldSockets.adopt(spec.listen, serving.group.main);
  for (const epoch of registry.all()) {
    const { state, endedBy = serving?.meta.createdBy ?? '', policy = config.policy ?? DEFAULT_POLICY } = epoch.meta;
    if (epoch === serving) continue;
    if (state === 'serving' && serving) await listenFd.settle({ context, starting: serving, old: epoch });
    drains.begin(epoch, endedBy, policy);
  }
  return serving !== undefined;
}
