import { type ControllerMessage, toSluiceError } from '@sluice/contract';
import type { CommandContext } from './context.ts';
import type { Drains } from './drains.ts';
import { connectionsOf } from './status.ts';
import type { Upgrades } from './upgrades.ts';

/** Does what the controller asks. Never throws: what fails is answered or logged. */
export function commandHandler(
  context: CommandContext,
  upgrades: Upgrades,
  drains: Drains,
): (message: ControllerMessage) => void {
  const { send, log } = context;
  const run = async (message: ControllerMessage): Promise<void> => {
    switch (message.type) {
      case 'preflight': {
        const { upgradeId } = message;
        return send({ type: 'preflight', upgradeId, ...(await upgrades.check(message.target)) });
      }
      case 'check': {
        const { ok, checks } = await upgrades.check(message.target);
        return send({ type: 'checked', requestId: message.requestId, ok, checks });
      }
      case 'start':
        return upgrades.start(message);
      case 'drain':
        return drains.apply(message.order, 'link');
      case 'reset':
        await drains.reset(message.upgradeId, message.epoch, message.override);
        return;
      case 'abort':
        upgrades.abort(message.upgradeId);
        return;
      case 'connections': {
        const { requestId, epoch, limit } = message;
        const all = connectionsOf(context, epoch);
        const truncated = all.length > limit;
        return send({ type: 'connections', requestId, connections: all.slice(0, limit), truncated });
      }
      case 'refused':
        log('error', 'refused by the controller', { code: message.code, message: message.message });
        return;
      default:
        return; // ping, welcome, listenersChanged, and what a newer controller says
    }
  };
  return (message) => {
    run(message).catch((thrown) => {
      const error = toSluiceError(thrown);
      log('warn', 'command refused', { command: message.type, code: error.code, error: error.message });
    });
  };
}
