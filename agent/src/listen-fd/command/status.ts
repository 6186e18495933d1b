import { agentStatus, localRequests, portAnswers, type StatusSources } from '../../keeper/local-api.ts';
import { agentSocket } from '../../keeper/plan.ts';
import { createControlServer, createStatusPort } from '../../status/index.ts';
import type { CommandContext } from './context.ts';
import type { Drains } from './drains.ts';
import type { Upgrades } from './upgrades.ts';

export interface StatusParts extends StatusSources {
  readonly upgrades: Upgrades;
  readonly drains: Drains;
}

/** The same local API and status port as the keeper of Envoys has. */
export async function openStatus(context: CommandContext, parts: StatusParts): Promise<{ close(): Promise<void> }> {
  const { config, registry, log, exclusive, standing } = context;
  const control = await createControlServer({
    path: agentSocket(config.dir),
    log,
    handlers: {
      // Nobody sends reports here: this proxy runs no filter of ours.
      report: () => new Uint8Array(),
      status: () => ({ ...agentStatus(context, parts), keptListenSockets: context.sockets.list.length }),
      waitServing: (signal) =>
        standing.until(() => (exclusive.busy ? undefined : registry.serving()?.status(config.slot)), signal),
      ...localRequests(context, { ...parts, connections: async (epoch) => connectionsOf(context, epoch) }),
    },
  });
  const port =
    config.statusAddress === undefined
      ? undefined
      : await createStatusPort(config.statusAddress, {
          ...portAnswers(context, parts, control),
          ready: () => {
            const serving = registry.serving();
            return serving
              ? { ok: true, text: `epoch ${serving.number} serves` }
              : { ok: false, text: 'no epoch serves' };
          },
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
