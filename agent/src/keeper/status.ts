import { decodeReport, encodeReply } from '@sluice/contract';
import { notShared, strangers } from '../preflight/shared.ts';
import {
  createControlServer,
  createStatusPort,
  type HandedStatusPort,
  openHandedStatusPort,
  type StatusHandlers,
} from '../status/index.ts';
import type { Crashes } from '../supervisor/crashes.ts';
import { onClock } from './clock.ts';
import { connectionsOf } from './commands.ts';
import type { KeeperContext } from './context.ts';
import type { Drains } from './drains.ts';
import type { Ending } from './ending.ts';
import { agentStatus, localRequests, portAnswers } from './local-api.ts';
import { agentSocket } from './plan.ts';
import type { Upgrades } from './upgrades.ts';

const STATS_MS = 5_000;

export interface StatusParts {
  readonly crashes: Crashes;
  readonly upgrades: Upgrades;
  readonly drains: Drains;
  readonly ending: Ending;
  readonly link: () => { readonly connected: boolean };
}

export interface OpenStatus {
  /** Takes the status port over from the peer, where that one has it. */
  claimPort(): Promise<void>;
  /** Resolves once the peer has it, or will not. */
  portGiven(): Promise<void>;
  close(): Promise<void>;
}

/** Opens the agent's Unix socket (reports, local control) and its status port. Throws SLOT_TAKEN or CONFIG_INVALID. */
export async function openStatus(context: KeeperContext, parts: StatusParts): Promise<OpenStatus> {
  const { config, registry, log } = context;
  const control = await createControlServer({
    path: agentSocket(config.dir),
    log,
    handlers: {
      report: (body) => {
        const report = decodeReport(body);
        const epoch = registry.get(report.epoch);
        // An epoch that ended a moment ago, or is none of ours: nothing to say to it.
        return epoch ? encodeReply(epoch.table.apply(onClock(report, context.clock), context.now())) : new Uint8Array();
      },
      status: () => ({
        ...agentStatus(context, parts),
        keptListenSockets: context.kept.size,
        standing: context.standing.facts,
      }),
      ...localRequests(context, {
        upgrades: parts.upgrades,
        drains: parts.drains,
        connections: (epoch) => connectionsOf(context, epoch),
      }),
      // An agent that is not the one to serve has nothing to wait for: its container is as ready as it will be.
      waitServing: (signal) =>
        context.standing.until(() => {
          const serving = registry.serving();
          if (serving && !context.exclusive.busy) return { ...serving.status(config.slot), ...context.standing.facts };
          const { role, handedTo } = context.standing.facts;
          return role === 'standby' || handedTo ? { slot: config.slot, ...context.standing.facts } : undefined;
        }, signal),
      prestop: () => parts.ending.prestop(),
    },
  });
  const handlers: StatusHandlers = {
    ...portAnswers(context, parts, control),
    // Of the one that serves alone: counts of the old epoch would be the same series a second time.
    proxyMetrics: () => registry.serving()?.admin.get('/stats/prometheus', STATS_MS),
    ready: () => {
      const serving = registry.serving();
      if (serving) return { ok: true, text: `epoch ${serving.number} of slot ${config.slot} serves` };
      // Asked for a moment still, before the peer answers here itself.
      const { handedTo } = context.standing.facts;
      if (handedTo) return { ok: true, text: `epoch ${handedTo.epoch} of slot ${handedTo.slot} serves` };
      return { ok: false, text: 'no epoch serves' };
    },
  };
  const port = await openPort(context, handlers);
  return {
    claimPort: () => port.claim(),
    portGiven: () => port.given(),
    async close() {
      await Promise.all([control.close(), port.close()]);
    },
  };
}

/** Among two agents of one network the port goes from one to the other. */
async function openPort(
  { config, registry, log, signal }: KeeperContext,
  handlers: StatusHandlers,
): Promise<HandedStatusPort> {
  const { statusAddress: address, shared, slot } = config;
  const alone = { claim: async () => {}, given: async () => {} };
  if (address === undefined) return { ...alone, close: async () => {} };
  if (shared !== undefined) {
    return openHandedStatusPort({ address, handlers, shared, slot, log, signal }).catch((error: unknown) => {
      // The port is taken by an agent that can not be seen: the cause is the folder, and not the port.
      const others = strangers(
        config.baseId,
        registry.folders().map(({ epoch }) => epoch),
      );
      throw others.length > 0 ? notShared(config.baseId, shared, others) : error;
    });
  }
  const port = await createStatusPort(address, handlers);
  return { ...alone, close: () => port.close() };
}
