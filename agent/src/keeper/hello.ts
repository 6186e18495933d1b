import { type Hello, PROTOCOL_VERSION } from '@sluice/contract';
import { AGENT_VERSION } from '../version.ts';
import { knownVersions } from './config.ts';
import type { KeeperContext } from './context.ts';

/** The first message of every connection to a controller. */
export function helloOf({ config, registry }: Pick<KeeperContext, 'config' | 'registry'>): Hello {
  return {
    type: 'hello',
    v: PROTOCOL_VERSION,
    proxy: config.proxy,
    slot: config.slot,
    agentVersion: AGENT_VERSION,
    identity: config.token === undefined ? {} : { token: config.token },
    epochs: registry.statuses(config.slot),
    versions: knownVersions(config.envoys),
    ...(Object.keys(config.labels).length > 0 && { labels: config.labels }),
    memory: { agentRss: process.memoryUsage.rss() },
  };
}
