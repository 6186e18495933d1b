import type { DrainOrder } from '@sluice/contract';
import type { Agents } from '../link/agents.ts';
import type { Log } from '../log.ts';
import type { Command, UpgradeState } from './state.ts';

/** Where drain orders go: the xDS server. */
export interface OrderSink {
  set(proxy: string, epoch: number, order: DrainOrder): void;
  clear(proxy: string, epoch: number): void;
}

export interface CommandParts {
  readonly agents: Agents;
  readonly orders: OrderSink;
  readonly log: Log;
}

/** Carries out one command of the machine. What does not reach its agent is given again with the agent's next hello. */
export function runCommand({ agents, orders, log }: CommandParts, state: UpgradeState, command: Command): void {
  const { id: upgradeId, proxy, target, policy } = state;
  const send = (slot: string | undefined, message: Parameters<Agents['send']>[2]): void => {
    if (slot !== undefined && agents.send(proxy, slot, message)) return;
    log.debug({ upgrade: upgradeId, slot, message: message.type }, 'agent away: command not sent');
  };
  switch (command.type) {
    case 'sendPreflight':
      send(command.slot, { type: 'preflight', upgradeId, target, policy });
      break;
    case 'sendStart':
      send(command.slot, { type: 'start', upgradeId, target, policy });
      break;
    case 'sendAbort':
      send(command.slot, { type: 'abort', upgradeId });
      break;
    case 'pushOrder':
      orders.set(proxy, command.order.epoch, command.order);
      send(command.slot, { type: 'drain', order: command.order });
      break;
    case 'withdrawOrder':
      orders.clear(proxy, command.epoch);
      break;
    case 'authorizeReset': {
      const { epoch, override } = command;
      send(command.slot, { type: 'reset', upgradeId, epoch, ...(override === undefined ? {} : { override }) });
      break;
    }
  }
}
