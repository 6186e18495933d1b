import { SluiceError } from '@sluice/contract';
import { agentSocket } from '../../keeper/plan.ts';
import { agentMetrics, createControlServer, createStatusPort, renderMetrics } from '../../status/index.ts';
import { AGENT_VERSION } from '../../version.ts';
import type { CommandContext } from './context.ts';
import type { Crashes } from './crashes.ts';
import type { Drains } from './drains.ts';
import type { Upgrades } from './upgrades.ts';

export interface StatusParts {
  readonly upgrades: Upgrades;
  readonly drains: Drains;
  readonly crashes: Crashes;
  readonly link: () => { readonly connected: boolean };
}

const SERVING_LOOK_MS = 100;

/** The same local API and status port as the keeper of Envoys has. */
export async function openStatus(context: CommandContext, parts: StatusParts): Promise<{ close(): Promise<void> }> {
  const { config, registry, log, exclusive } = context;
  const statuses = () => registry.statuses(config.slot);
  const control = await createControlServer({
    path: agentSocket(config.dir),
    log,
    handlers: {
      // Nobody sends reports here: this proxy runs no filter of ours.
      report: () => new Uint8Array(),
      status: () => ({
        proxy: config.proxy,
        slot: config.slot,
        agentVersion: AGENT_VERSION,
        epochs: statuses(),
        controller: context.alone ? 'none' : parts.link().connected ? 'connected' : 'away',
        keptListenSockets: context.sockets.list.length,
        memory: process.memoryUsage(),
      }),
      connections: async (epoch) => ({ items: connectionsOf(context, epoch), truncated: false }),
      waitServing: async (signal) => {
        for (;;) {
          const serving = registry.serving();
          if (serving && !exclusive.busy) return serving.status(config.slot);
          signal.throwIfAborted();
          await new Promise((resolve) => setTimeout(resolve, SERVING_LOOK_MS));
        }
      },
      upgrade: async (body) => {
        if (!context.alone)
          throw new SluiceError('PHASE_REFUSED', 'this agent has a controller: ask it for the upgrade');
        const to = text(body.to, 'to');
        const bootstrap = body.bootstrap === undefined ? undefined : text(body.bootstrap, 'bootstrap');
        const target = { to, ...(bootstrap !== undefined && { bootstrap }) };
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
  const port =
    config.statusAddress === undefined
      ? undefined
      : await createStatusPort(config.statusAddress, {
          live: () =>
            parts.crashes.exhausted ? { ok: false, text: 'restart budget used up' } : { ok: true, text: 'ok' },
          ready: () => {
            const serving = registry.serving();
            return serving
              ? { ok: true, text: `epoch ${serving.number} serves` }
              : { ok: false, text: 'no epoch serves' };
          },
          metrics: () =>
            renderMetrics(
              agentMetrics({
                now: context.now(),
                proxy: config.proxy,
                slot: config.slot,
                agentVersion: AGENT_VERSION,
                epochs: statuses(),
                linkConnected: parts.link().connected,
                linkWaiting: 0,
                rssBytes: process.memoryUsage.rss(),
                reports: control.stats,
                crashes: parts.crashes.total,
              }),
            ),
        });
  return {
    async close() {
      await Promise.all([control.close(), port?.close()]);
    },
  };
}

/** Of draining epochs what their verdict names; those of a serving one nobody asks for. */
export function connectionsOf({ registry }: CommandContext, epoch: number | undefined) {
  return registry
    .all()
    .filter(({ number }) => epoch === undefined || number === epoch)
    .flatMap(({ drain }) => drain?.verdict?.held.map(({ connection }) => connection) ?? []);
}

function text(value: unknown, field: string): string {
  if (typeof value === 'string' && value !== '') return value;
  throw new SluiceError(
    'INPUT_INVALID',
    `expected ${field} to be a string, found ${JSON.stringify(value) ?? 'nothing'}`,
  );
}
