import type { Epoch } from '../epochs/epoch.ts';
import type { BroughtUp, EpochPlan, StartOptions } from '../epochs/handover.ts';
import { asOthers, giveWay } from '../native/sched.ts';
import { announceEpochs, type KeeperContext } from './context.ts';

/**
 * A start takes half a second; on a machine that leaves it nothing it must not take for ever. And hot restart gives both
 * processes one lock for their logs (source/server/hot_restart_impl.h, log_lock_): who waits for one that gives way leaves it a core.
 */
const COURTESY_MS = 3_000;

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
  let courtesy: NodeJS.Timeout | undefined;
  try {
    const up = await start({
      plan,
      kept,
      timeoutMs: config.startTimeoutMs,
      ...(context.launch && { launch: context.launch }),
      signal: aborted ? AbortSignal.any([signal, aborted]) : signal,
      log,
      onLaunched: (launched) => {
        // Until it serves it takes what the one that serves leaves.
        const { pid } = launched.process;
        if (registry.serving() !== undefined) {
          giveWay(pid);
          courtesy = setTimeout(() => asOthers(pid), COURTESY_MS);
        }
        registry.add(launched);
        announceEpochs(context);
      },
      onTraffic: ({ process }) => asOthers(process.pid),
    });
    up.epoch.update({ servingSince: up.servingAt });
    watch(up.epoch);
    return up;
  } catch (error) {
    const dead = registry.get(plan.folder.epoch);
    if (dead) registry.remove(dead);
    announceEpochs(context);
    throw error;
  } finally {
    clearTimeout(courtesy);
  }
}
