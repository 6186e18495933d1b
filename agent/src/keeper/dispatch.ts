import {
  type Connection,
  type ControllerMessage,
  type DrainOrder,
  type DrainPolicy,
  MAX_HELD,
  type MethodName,
  type PlanNote,
  toSluiceError,
  type UpgradeTarget,
} from '@sluice/contract';
import type { ResetReport } from '../epochs/run-folder.ts';
import type { FrontContext } from './front.ts';
import type { Checked, UpgradeRequest } from './starts.ts';

const MAX_LISTED = 50 * MAX_HELD;

/** What can be asked of an agent, by its controller or by the local command line. */
export interface Front {
  readonly upgrades: {
    check(target: UpgradeTarget, policy?: DrainPolicy): Promise<Checked>;
    start(request: UpgradeRequest): Promise<void>;
    abort(upgradeId: string): boolean;
  };
  readonly drains: {
    reset(
      upgradeId: string,
      epoch: number,
      override?: { readonly by: string; readonly reason: string },
    ): Promise<ResetReport>;
  };
  /** Of one epoch, or of all. */
  connections(epoch: number | undefined): Promise<readonly Connection[]>;
}

/** What only a controller asks. */
export interface Commanded extends Front {
  order(order: DrainOrder): void;
  /** What two live epochs would mean. */
  notes?(policy: DrainPolicy | undefined, method: MethodName | undefined): Promise<PlanNote[]>;
  listenersChanged?(epoch: number): Promise<void>;
}

/** Does what the controller asks. Never throws: what fails is answered or logged. */
export function dispatcher(
  { send, log }: Pick<FrontContext, 'send' | 'log'>,
  front: Commanded,
): (message: ControllerMessage) => void {
  const { upgrades, drains } = front;
  const run = async (message: ControllerMessage): Promise<void> => {
    switch (message.type) {
      case 'preflight': {
        const { upgradeId } = message;
        const result = await upgrades.check(message.target, message.policy);
        return send({ type: 'preflight', upgradeId, ...result });
      }
      case 'check': {
        const { ok, checks, method } = await upgrades.check(message.target, message.policy);
        const notes = await front.notes?.(message.policy, method);
        return send({ type: 'checked', requestId: message.requestId, ok, checks, ...(notes && { notes }) });
      }
      case 'start':
        return upgrades.start(message);
      case 'drain':
        return front.order(message.order);
      case 'reset':
        await drains.reset(message.upgradeId, message.epoch, message.override);
        return;
      case 'abort':
        upgrades.abort(message.upgradeId);
        return;
      case 'connections': {
        const { requestId, epoch, limit } = message;
        return send({ type: 'connections', requestId, ...(await listConnections(front, epoch, limit)) });
      }
      case 'listenersChanged':
        return front.listenersChanged?.(message.epoch);
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

/** At most `limit` of them, and never so many that an answer grows without a bound. */
export async function listConnections(front: Pick<Front, 'connections'>, epoch?: number, limit = MAX_LISTED) {
  const all = await front.connections(epoch);
  const most = Math.max(0, Math.min(limit, MAX_LISTED));
  return { connections: all.slice(0, most), truncated: all.length > most };
}
