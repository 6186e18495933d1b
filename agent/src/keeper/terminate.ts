import type { KeeperContext } from './context.ts';
import type { Drains } from './drains.ts';

const ADMIN_BOUND_MS = 2_000;

/**
 * SIGTERM: no successor will come. The serving epoch stops accepting, its connections are told to leave, and every epoch
 * ends when its verdict is safe, or at the bound; then what is still open is named in the log.
 */
export async function terminate(context: KeeperContext, drains: Drains): Promise<void> {
  const { registry, kept, log, config, now } = context;
  const deadline = now() + config.terminationDrainMs;
  const serving = registry.serving();
  if (serving) {
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
  await Promise.all(
    registry.all().map(async (epoch) => {
      const safe = await epoch.drain?.untilSafe(deadline - now());
      if (safe === false) {
        const left = epoch.drain?.verdict;
        log('warn', 'ended with protected connections', {
          epoch: epoch.number,
          cut: left?.protected,
          summary: left?.summary,
        });
      }
      await epoch.end();
      registry.remove(epoch);
    }),
  );
}
