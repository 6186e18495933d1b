import {
  type ControllerMessage,
  completePolicy,
  type DrainPolicy,
  type MethodName,
  type PlanNote,
} from '@sluice/contract';
import { planNotes } from '../preflight/notes.ts';
import { readPlanFacts } from '../preflight/notes-read.ts';
import type { KeeperContext } from './context.ts';
import { dispatcher } from './dispatch.ts';
import type { Drains } from './drains.ts';
import { keepListeners } from './kept.ts';
import type { Upgrades } from './upgrades.ts';

/** A connection list is asked for once a person looks; the filter needs a moment to send its snapshot. */
const SNAPSHOT_WAIT_MS = 1_500;

/** Does what the controller asks; see dispatcher. */
export function commandHandler(
  context: KeeperContext,
  upgrades: Upgrades,
  drains: Drains,
): (message: ControllerMessage) => void {
  return dispatcher(context, {
    upgrades,
    drains,
    order: (order) => drains.applyLater(order),
    notes: (policy, method) => notesFor(context, policy, method),
    connections: (epoch) => connectionsOf(context, epoch),
    listenersChanged: async (number) => {
      const epoch = context.registry.get(number);
      if (!epoch || context.registry.serving() !== epoch || context.exclusive.busy) return;
      await keepListeners(context, epoch);
    },
  });
}

/** What two live epochs would mean; nothing where none serves. */
async function notesFor(
  { registry, config, now }: KeeperContext,
  policy: DrainPolicy | undefined,
  method: MethodName | undefined,
): Promise<PlanNote[]> {
  const serving = registry.serving();
  if (serving === undefined) return [];
  const meant = completePolicy(policy ?? config.policy);
  return planNotes(await readPlanFacts(registry, serving, { policy: meant, method, now: now() }), meant);
}

export async function connectionsOf({ registry }: KeeperContext, epoch: number | undefined) {
  const epochs = registry.all().filter((e) => epoch === undefined || e.number === epoch);
  await Promise.all(epochs.map((e) => e.table.snapshot(SNAPSHOT_WAIT_MS).catch(() => {})));
  return epochs.flatMap((e) => e.table.connections());
}
