import type { Epoch } from '../epochs/epoch.ts';
import { askPeerLoad } from '../handoff/peer.ts';
import { loadBetween, type Reading, readLoad, usualBetween } from '../pacing/load.ts';
import type { Load, Usual } from '../pacing/usual.ts';
import type { KeeperContext } from './context.ts';

/** Until then an epoch's counters may grow by those of its parent: Envoy adds them up while the two still talk. */
const MERGED_MS = 3_000;

async function readEpoch({ process, admin, meta }: Epoch, now: () => number): Promise<Reading | undefined> {
  const servingMs = now() - (meta.servingSince ?? meta.startedAt);
  if (servingMs < MERGED_MS) return undefined;
  return readLoad({ pid: process.pid, concurrency: meta.concurrency, admin });
}

/** What the epoch that serves here has borne so far. undefined: none does, or it has only begun. */
export async function readServing({ registry, now }: KeeperContext): Promise<Reading | undefined> {
  const serving = registry.serving();
  return serving && readEpoch(serving, now);
}

/** A sample this young stands: the longer it is before the drain, the less is what it tells a matter of chance. */
const STANDS_MS = 60_000;

/**
 * Notes what `old` has borne, as soon as another one is meant to take its place: the start itself may be over in a tenth of
 * a second, and what came in that says little. Never rejects, and nobody has to wait for it.
 */
export function sampleBefore({ now }: Pick<KeeperContext, 'now'>, old: Epoch): void {
  const at = now();
  if (old.sampled !== undefined && at - old.sampled.at < STANDS_MS) return;
  const reading = readEpoch(old, now).catch(() => undefined);
  const sample = { at, reading };
  old.sampled = sample;
  void reading.then((found) => {
    // Too young, or it could not be asked: the next one who means to replace it tries again.
    if (found === undefined && old.sampled === sample) old.sampled = undefined;
  });
}

/** What was usual of `old` before its drain. What can not be had is not in it. */
export async function usualOf({ now }: Pick<KeeperContext, 'now'>, old: Epoch): Promise<Usual> {
  const before = await old.sampled?.reading;
  const after = await readLoad({ pid: old.process.pid, concurrency: old.meta.concurrency, admin: old.admin });
  return usualBetween(before, after, now() - (old.meta.drainingSince ?? now()));
}

/**
 * Looks at what the epoch that serves now bears: this agent's own, or else that of the other slot, whose agent is asked.
 * undefined: nobody can be asked, or nothing can be said yet.
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
      return now && known && loadBetween(known, now);
    },
  };
}
