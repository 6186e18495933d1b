import { askPeerLoad } from '../handoff/peer.ts';
import { loadBetween, loadSinceBirth, type Reading, readLoad } from '../pacing/load.ts';
import type { Load } from '../pacing/usual.ts';
import type { KeeperContext } from './context.ts';

/** What the epoch that serves here has borne so far. undefined: none serves. */
export async function readServing({ registry, now }: KeeperContext): Promise<Reading | undefined> {
  const serving = registry.serving();
  if (serving === undefined) return undefined;
  const { process, admin, meta } = serving;
  const servingMs = Math.max(0, now() - (meta.servingSince ?? meta.startedAt));
  return readLoad({ pid: process.pid, concurrency: meta.concurrency, admin, servingMs });
}

/**
 * Looks at what the epoch that serves now bears: this agent's own, or else that of the other slot, whose agent is asked.
 * The first look at one tells what it bore since it serves. undefined: nobody can be asked, or nothing can be said yet.
 */
export function loadWatch(context: KeeperContext): { look(): Promise<Load | undefined> } {
  let of: unknown;
  let before: Reading | undefined;
  return {
    async look() {
      const { registry, config, standing } = context;
      const { handedTo } = standing.facts;
      // There may have been another upgrade since.
      const who = registry.serving() ?? handedTo?.epoch;
      const away = registry.serving() === undefined && config.shared !== undefined ? handedTo : undefined;
      const now = away ? await askPeerLoad(config.shared as string, away.slot) : await readServing(context);
      const known = who === of ? before : undefined;
      of = who;
      before = now;
      if (now === undefined) return undefined;
      return known === undefined ? loadSinceBirth(now) : loadBetween(known, now);
    },
  };
}
