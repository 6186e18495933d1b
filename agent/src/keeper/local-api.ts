import { isMethodWish, MAX_OVERRIDE_TEXT, METHOD_WISHES, SluiceError } from '@sluice/contract';
import {
  agentMetrics,
  type ControlHandlers,
  type ControlServer,
  renderMetrics,
  type StatusHandlers,
} from '../status/index.ts';
import { AGENT_VERSION } from '../version.ts';
import { type Front, listConnections } from './dispatch.ts';
import type { FrontContext } from './front.ts';

/** What the status of any proxy's agent is made of. */
export interface StatusSources {
  readonly link: () => { readonly connected: boolean };
  readonly crashes: { readonly exhausted: boolean; readonly total: number };
}

/** What a person may ask of an agent on its own socket. Bodies come as they were sent. */
export function localRequests(
  context: FrontContext,
  front: Front,
): Pick<ControlHandlers, 'connections' | 'upgrade' | 'abort' | 'reset'> {
  return {
    connections: async (epoch) => {
      const { connections: items, truncated } = await listConnections(front, epoch);
      return { items, truncated };
    },
    upgrade: async (body) => {
      if (!context.alone) throw new SluiceError('PHASE_REFUSED', 'this agent has a controller: ask it for the upgrade');
      const to = text(body.to, 'to');
      const bootstrap = body.bootstrap === undefined ? undefined : text(body.bootstrap, 'bootstrap');
      const { method } = body;
      if (method !== undefined && !isMethodWish(method))
        throw new SluiceError('INPUT_INVALID', `expected method to be one of ${METHOD_WISHES.join(', ')}`);
      const target = { to, ...(bootstrap !== undefined && { bootstrap }), ...(method !== undefined && { method }) };
      const checked = await front.upgrades.check(target);
      const upgradeId = `local-${context.now().toString(36)}`;
      if (checked.ok) void front.upgrades.start({ upgradeId, target, policy: context.config.policy });
      return { upgradeId, ...checked };
    },
    abort: async (body) => ({ aborted: front.upgrades.abort(text(body.upgradeId, 'upgradeId')) }),
    reset: async (body) => {
      if (typeof body.epoch !== 'number')
        throw new SluiceError('INPUT_INVALID', 'expected epoch to be a number, found none');
      const override = body.reason === undefined ? undefined : overrideOf(body);
      return front.drains.reset(context.registry.get(body.epoch)?.meta.endedBy ?? '', body.epoch, override);
    },
  };
}

/** What an agent says of itself. */
export function agentStatus({ config, registry, alone }: FrontContext, { link }: StatusSources) {
  return {
    proxy: config.proxy,
    slot: config.slot,
    agentVersion: AGENT_VERSION,
    epochs: registry.statuses(config.slot),
    controller: alone ? 'none' : link().connected ? 'connected' : 'away',
    memory: process.memoryUsage(),
  };
}

/** What its status port says beside whether it is ready. */
export function portAnswers(
  { config, registry, now }: FrontContext,
  { link, crashes }: StatusSources,
  control: ControlServer,
): Pick<StatusHandlers, 'live' | 'metrics'> {
  return {
    live: () => (crashes.exhausted ? { ok: false, text: 'restart budget used up' } : { ok: true, text: 'ok' }),
    metrics: () =>
      renderMetrics(
        agentMetrics({
          now: now(),
          proxy: config.proxy,
          slot: config.slot,
          agentVersion: AGENT_VERSION,
          epochs: registry.statuses(config.slot),
          linkConnected: link().connected,
          linkWaiting: 0,
          rssBytes: process.memoryUsage.rss(),
          reports: control.stats,
          crashes: crashes.total,
        }),
      ),
  };
}

function overrideOf(body: Record<string, unknown>): { readonly by: string; readonly reason: string } {
  // An older command line does not say who it is.
  const override = { by: body.by === undefined ? 'local' : text(body.by, 'by'), reason: text(body.reason, 'reason') };
  for (const [field, { length }] of Object.entries(override)) {
    if (length <= MAX_OVERRIDE_TEXT) continue;
    // The controller would refuse the message that tells it.
    const most = `expected ${field} to have at most ${MAX_OVERRIDE_TEXT} characters`;
    throw new SluiceError('INPUT_INVALID', `${most}, found ${length}`);
  }
  return override;
}

function text(value: unknown, field: string): string {
  if (typeof value === 'string' && value !== '') return value;
  throw new SluiceError(
    'INPUT_INVALID',
    `expected ${field} to be a string, found ${JSON.stringify(value) ?? 'nothing'}`,
  );
}
