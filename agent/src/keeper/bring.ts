import type { Epoch } from '../epochs/epoch.ts';
import type { BroughtUp, EpochPlan, StartOptions } from '../epochs/handover.ts';
import { asOthers } from '../native/sched.ts';
import { announceEpochs, type KeeperContext } from './context.ts';

export interface Bringing {
  readonly plan: EpochPlan;
  /** Does the start: resolves when the epoch serves, throws when it does not and is dead. */
  readonly start: (options: StartOptions) => Promise<BroughtUp>;
  /** Told of the epoch once it serves. */
  readonly watch: (epoch: Epoch) => void;
  /** Gives up the start, besides the end of this agent. */
  readonly aborted?: AbortSignal;
}

/** Brings one epoch up and into the registry; one that does not serve is taken out again and its error thrown. */
export async function bring(context: KeeperContext, { plan, start, watch, aborted }: Bringing): Promise<BroughtUp> {
  const { registry, kept, config, log, signal } = context;
  try {
    const up = await start({
      plan,
      kept,
      timeoutMs: config.startTimeoutMs,
      ...(context.launch && { launch: context.launch }),
      signal: aborted ? AbortSignal.any([signal, aborted]) : signal,
      log,
      onLaunched: (launched) => {
        registry.add(launched);
        announceEpochs(context);
      },
    });
    // Until now it took what the one that serves left (keeper.ts).
    asOthers(up.epoch.process.pid);
    up.epoch.update({ servingSince: up.servingAt });
    watch(up.epoch);
    return up;
  } catch (error) {
    const dead = registry.get(plan.folder.epoch);
    if (dead) registry.remove(dead);
    announceEpochs(context);
    throw error;
  }
}
