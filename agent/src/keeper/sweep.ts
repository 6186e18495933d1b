import { rmSync } from 'node:fs';
import { sharedMemoryPath } from '../broker/index.ts';
import type { KeeperContext } from './context.ts';

/**
 * Removes the shared memory of lines of epochs that have ended: each handover by reuse-port begins a line, with a base id
 * that nobody else has. Not with two slots, of which the other one may have gone on with a line of this one.
 */
export function sweepSharedMemory({ registry, config, log }: Pick<KeeperContext, 'registry' | 'config' | 'log'>): void {
  if (config.shared !== undefined) return;
  const inUse = new Set([config.baseId, ...registry.all().map(({ meta }) => meta.baseId)]);
  for (const folder of registry.folders()) {
    const meta = folder.readMeta();
    if (meta?.method !== 'reuse-port' || inUse.has(meta.baseId)) continue;
    try {
      rmSync(sharedMemoryPath(meta.baseId), { force: true });
    } catch (error) {
      log('warn', 'shared memory of an ended epoch not removed', { epoch: meta.epoch, error: String(error) });
    }
  }
}
