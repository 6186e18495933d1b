import { type Hello, PROTOCOL_VERSION } from '@sluice/contract';
import { AGENT_VERSION } from '../version.ts';
import type { FrontContext } from './front.ts';

/** The first message of every connection to a controller. `versions`: of the proxy, that this agent can start by name. */
export function helloOf({ config, registry }: FrontContext, versions: readonly string[]): Hello {
  return {
    type: 'hello',
    v: PROTOCOL_VERSION,
    proxy: config.proxy,
    slot: config.slot,
    agentVersion: AGENT_VERSION,
    identity: config.token === undefined ? {} : { token: config.token },
    epochs: registry.statuses(config.slot),
    versions,
    ...(Object.keys(config.labels).length > 0 && { labels: config.labels }),
    memory: { agentRss: process.memoryUsage.rss() },
  };
}
