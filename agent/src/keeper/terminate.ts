import type { KeeperContext } from './context.ts';
import type { Drains } from './drains.ts';

const ADMIN_BOUND_MS = 2_000;

/** No successor will come: the serving epoch stops accepting, and its connections are told to leave. */
export async function stopServing(context: KeeperContext, drains: Drains): Promise<void> {
  const { registry, kept, log, config, now } = context;
  const serving = registry.serving();
  if (!serving) return;
  serving.captureListenAddresses();
  await serving.admin.post('/drain_listeners', ADMIN_BOUND_MS).catch((error: unknown) => {
    log('warn', 'listeners could not be drained', { error: String(error) });
  });
  kept.closeAll(); // or clients would hang in a backlog that nobody empties
  drains.begin(serving, 'terminate', config.policy);
  const { policy } = config;
  const order = {
    v: 1,
    upgradeId: 'terminate',
    epoch: serving.number,
    version: 1,
    action: 'drain',
    policy,
    cutoffAgeMs: 0,
    issuedAt: now(),
  } as const;
  drains.apply(serving, order, 'local');
}
