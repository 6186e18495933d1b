import {
  type ControllerMessage,
  completePolicy,
  type DrainPolicy,
  MAX_HELD,
  type MethodName,
  type PlanNote,
  toSluiceError,
} from '@sluice/contract';
import { planNotes } from '../preflight/notes.ts';
import { readPlanFacts } from '../preflight/notes-read.ts';
import type { KeeperContext } from './context.ts';
import type { Drains } from './drains.ts';
import { keepListeners } from './kept.ts';
import type { Upgrades } from './upgrades.ts';

/** A connection list is asked for once a person looks; the filter needs a moment to send its snapshot. */
const SNAPSHOT_WAIT_MS = 1_500;

/** Does what the controller asks. Never throws: what fails is answered or logged. */
export function commandHandler(
  context: KeeperContext,
  upgrades: Upgrades,
  drains: Drains,
): (message: ControllerMessage) => void {
  const { send, log } = context;
  const run = async (message: ControllerMessage): Promise<void> => {
    switch (message.type) {
      case 'preflight': {
        const { upgradeId } = message;
        const result = await upgrades.check(message.target, message.policy);
        return send({ type: 'preflight', upgradeId, ...result });
      }
      case 'check': {
        const { ok, checks, method } = await upgrades.check(message.target, message.policy);
        const notes = await notesFor(context, message.policy, method);
        return send({ type: 'checked', requestId: message.requestId, ok, checks, notes });
      }
      case 'start':
        return upgrades.start(message);
      case 'drain':
        return drains.applyLater(message.order);
      case 'reset':
        await drains.reset(message.upgradeId, message.epoch, message.override);
        return;
      case 'abort':
        upgrades.abort(message.upgradeId);
        return;
      case 'connections':
        return send({
          type: 'connections',
          requestId: message.requestId,
          ...(await listConnections(context, message)),
        });
      case 'listenersChanged': {
        const epoch = context.registry.get(message.epoch);
        if (!epoch || context.registry.serving() !== epoch || context.exclusive.busy) return;
        return keepListeners(context, epoch);
      }
      case 'refused':
        log('error', 'refused by the controller', { code: message.code, message: message.message });
        return;
      default:
        return; // ping, welcome, and what a newer controller says
    }
  };
  return (message) => {
    run(message).catch((thrown) => {
      const error = toSluiceError(thrown);
      log('warn', 'command refused', { command: message.type, code: error.code, error: error.message });
    });
  };
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

export async function listConnections(
  context: KeeperContext,
  request: { readonly epoch?: number | undefined; readonly limit: number },
) {
  const epochs = context.registry.all().filter((e) => request.epoch === undefined || e.number === request.epoch);
  await Promise.all(epochs.map((e) => e.table.snapshot(SNAPSHOT_WAIT_MS).catch(() => {})));
  const all = epochs.flatMap((e) => e.table.connections());
  const limit = Math.max(0, Math.min(request.limit, 50 * MAX_HELD));
  return {
    connections: all.slice(0, limit),
    truncated: all.length > limit,
  };
}
