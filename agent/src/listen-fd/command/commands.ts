import type { ControllerMessage } from '@sluice/contract';
import { dispatcher } from '../../keeper/dispatch.ts';
import type { CommandContext } from './context.ts';
import type { Drains } from './drains.ts';
import { connectionsOf } from './status.ts';
import type { Upgrades } from './upgrades.ts';

/** Does what the controller asks; see dispatcher. */
export function commandHandler(
  context: CommandContext,
  upgrades: Upgrades,
  drains: Drains,
): (message: ControllerMessage) => void {
  return dispatcher(context, {
    upgrades,
    drains,
    order: (order) => drains.apply(order, 'link'),
    connections: async (epoch) => connectionsOf(context, epoch),
  });
}
