import {
  type Connection,
  decodeReport,
  encodeReply,
  isMethodWish,
  MAX_HELD,
  METHOD_WISHES,
  SluiceError,
} from '@sluice/contract';
import { notShared, strangers } from '../preflight/shared.ts';
import {
  agentMetrics,
  createControlServer,
  createStatusPort,
  type HandedStatusPort,
  openHandedStatusPort,
  renderMetrics,
  type StatusHandlers,
} from '../status/index.ts';
import type { Crashes } from '../supervisor/crashes.ts';
import { AGENT_VERSION } from '../version.ts';
import { listConnections } from './commands.ts';
import type { KeeperContext } from './context.ts';
import type { Drains } from './drains.ts';
import type { Ending } from './ending.ts';
import { agentSocket } from './plan.ts';
import type { Upgrades } from './upgrades.ts';

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
        return epoch ? encodeReply(epoch.table.apply(report, context.now())) : new Uint8Array();
      },
      status: () => ({
        proxy: config.proxy,
        slot: config.slot,
        agentVersion: AGENT_VERSION,
        epochs: registry.statuses(config.slot),
        controller: context.alone ? 'none' : parts.link().connected ? 'connected' : 'away',
        keptListenSockets: context.kept.size,
        standing: context.standing.facts,
        memory: process.memoryUsage(),
      }),
      connections: async (epoch) => {
        const { connections, truncated } = await listConnections(context, { epoch, limit: 50 * MAX_HELD });
        return { items: connections as readonly Connection[], truncated };
      },
      // An agent that is not the one to serve has nothing to wait for: its container is as ready as it will be.
      waitServing: (signal) =>
        context.standing.until(() => {
          const serving = registry.serving();
          if (serving && !context.exclusive.busy) return { ...serving.status(config.slot), ...context.standing.facts };
          const { role, handedTo } = context.standing.facts;
          return role === 'standby' || handedTo ? { slot: config.slot, ...context.standing.facts } : undefined;
        }, signal),
      prestop: () => parts.ending.prestop(),
      upgrade: async (body) => {
        if (!context.alone)
          throw new SluiceError('PHASE_REFUSED', 'this agent has a controller: ask it for the upgrade');
        const to = text(body.to, 'to');
        const bootstrap = body.bootstrap === undefined ? undefined : text(body.bootstrap, 'bootstrap');
        const { method } = body;
        if (method !== undefined && !isMethodWish(method))
          throw new SluiceError('INPUT_INVALID', `expected method to be one of ${METHOD_WISHES.join(', ')}`);
        const target = { to, ...(bootstrap !== undefined && { bootstrap }), ...(method !== undefined && { method }) };
        const checked = await parts.upgrades.check(target);
        const upgradeId = `local-${context.now().toString(36)}`;
        if (checked.ok) void parts.upgrades.start({ upgradeId, target, policy: config.policy });
        return { upgradeId, ...checked };
      },
      abort: async (body) => ({ aborted: parts.upgrades.abort(text(body.upgradeId, 'upgradeId')) }),
      reset: async (body) => {
        if (typeof body.epoch !== 'number')
          throw new SluiceError('INPUT_INVALID', 'expected epoch to be a number, found none');
        const override = body.reason === undefined ? undefined : { by: 'local', reason: text(body.reason, 'reason') };
        return parts.drains.reset(registry.get(body.epoch)?.meta.endedBy ?? '', body.epoch, override);
      },
    },
  });
  const handlers: StatusHandlers = {
    live: () => (parts.crashes.exhausted ? { ok: false, text: 'restart budget used up' } : { ok: true, text: 'ok' }),
    ready: () => {
      const serving = registry.serving();
      if (serving) return { ok: true, text: `epoch ${serving.number} of slot ${config.slot} serves` };
      // Asked for a moment still, before the peer answers here itself.
      const { handedTo } = context.standing.facts;
      if (handedTo) return { ok: true, text: `epoch ${handedTo.epoch} of slot ${handedTo.slot} serves` };
      return { ok: false, text: 'no epoch serves' };
    },
    metrics: () =>
      renderMetrics(
        agentMetrics({
          now: context.now(),
          proxy: config.proxy,
          slot: config.slot,
          agentVersion: AGENT_VERSION,
          epochs: registry.statuses(config.slot),
          linkConnected: parts.link().connected,
          linkWaiting: 0,
          rssBytes: process.memoryUsage.rss(),
          reports: control.stats,
          crashes: parts.crashes.total,
        }),
      ),
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

function text(value: unknown, field: string): string {
  if (typeof value === 'string' && value !== '') return value;
  throw new SluiceError(
    'INPUT_INVALID',
    `expected ${field} to be a string, found ${JSON.stringify(value) ?? 'nothing'}`,
  );
}
