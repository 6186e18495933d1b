import type { V1Pod } from '@kubernetes/client-node';
import { toSluiceError } from '@sluice/contract';
import type { Log } from '../log.ts';
import type { AgentRow, Store } from '../store/store.ts';
import { pause } from './backoff.ts';
import { podOfProxy, UID_LABEL } from './words.ts';

const SWEEP_MS = 10 * 60_000;
/** An agent may be heard before its Pod is seen here. */
const FRESH_MS = 10 * 60_000;

export interface SweepParts {
  readonly store: Store;
  /** Every Pod as it was last seen: called after the first list. */
  readonly pod: (namespace: string, name: string) => V1Pod | undefined;
  /** The only namespace whose Pods are seen; all without. */
  readonly watch?: string | undefined;
  readonly onGone: (proxy: string) => void;
  readonly log: Log;
  readonly everyMs?: number;
}

/** Proxies of Pods that are no more. Those of virtual machines, and of namespaces that are not looked at, are none. */
export function goneProxies(
  rows: readonly AgentRow[],
  { pod, watch }: Pick<SweepParts, 'pod' | 'watch'>,
  now: number,
): string[] {
  const alive = new Set<string>();
  const all = new Set<string>();
  for (const { proxy, labels, seenAt } of rows) {
    all.add(proxy);
    const place = podOfProxy(proxy);
    const looked = place !== undefined && (watch === undefined || watch === place.namespace);
    const gone = looked && labels?.[UID_LABEL] !== undefined && pod(place.namespace, place.name) === undefined;
    if (!gone || now - seenAt < FRESH_MS) alive.add(proxy);
  }
  return [...all].filter((proxy) => !alive.has(proxy));
}

/** Forgets proxies whose Pods are gone, each ten minutes until the signal is aborted: the leader's. Never rejects. */
export async function sweep({ everyMs = SWEEP_MS, ...parts }: SweepParts, signal: AbortSignal): Promise<void> {
  const { store, onGone, log } = parts;
  if (store.forget === undefined) return;
  while (!signal.aborted) {
    try {
      for (const proxy of goneProxies(await store.agents(), parts, Date.now())) {
        if (signal.aborted) return;
        await store.forget(proxy);
        onGone(proxy);
        log.info({ proxy }, 'its Pod is gone: its upgrades are forgotten');
      }
    } catch (thrown) {
      log.warn({ err: toSluiceError(thrown) }, 'proxies whose Pods are gone: again later');
    }
    await pause(everyMs * (0.9 + 0.2 * Math.random()), signal);
  }
}
