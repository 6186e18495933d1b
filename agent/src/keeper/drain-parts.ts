import { join } from 'node:path';
import {
  completePolicy,
  type DrainOrder,
  type DrainPolicy,
  type EndedConnection,
  type Verdict,
} from '@sluice/contract';
import { DrainWatch } from '../epochs/drain-watch.ts';
import { Forecast } from '../epochs/forecast.ts';
import { cutBefore, Ledger } from '../epochs/ledger.ts';
import type { AnyEpoch } from '../epochs/live-epoch.ts';
import type { FrontContext } from './front.ts';
import { isResetting } from './resets.ts';

/** With no order from anybody after this long, the agent gives its own: the drain must not hang on a dead controller. */
export const OWN_ORDER_AFTER_MS = 10_000;

/** What a drain writes beside its watch. */
export interface OpenDrain {
  readonly watch: DrainWatch;
  /** Its record and what it taught are complete. `crashed`: its end was nobody's wish. */
  close(crashed: boolean): void;
}

export interface DrainOptions {
  readonly policy: DrainPolicy;
  readonly onVerdict: (verdict: Verdict) => void;
  /** Connections that ended, and how many beyond those that can be named. */
  readonly onEnded: (items: readonly EndedConnection[], dropped: number) => void;
  /** What an earlier agent recorded of this drain. */
  readonly begun?: { readonly open: number | undefined; readonly items: readonly EndedConnection[] };
}

/** Notes that `old` drains, and for whom; of what an earlier agent noted nothing changes. */
export function noteDrain(old: AnyEpoch, upgradeId: string, policy: DrainPolicy, now: number): void {
  if (old.meta.policy !== undefined) return;
  // An agent that died in the middle of the handover has noted no more than since when.
  const drainingSince = old.meta.drainingSince ?? now;
  old.update({ state: 'draining', drainingSince, endedBy: upgradeId, policy });
  if (old.meta.oldConnections !== undefined) return;
  try {
    old.update({ oldConnections: old.countConnections() });
  } catch {} // not known, as the kernel can not tell
}

/** Watches `old` from here on, with its record and its forecast. */
export function openDrain({ registry, now, log }: FrontContext, old: AnyEpoch, options: DrainOptions): OpenDrain {
  const { policy, onVerdict, onEnded, begun } = options;
  const sources = old.sources(now);
  const forecast = new Forecast(join(registry.root, 'lifetimes.json'), () => watch.policy, sources.envoy);
  const ledger: Ledger = new Ledger((items) => {
    forecast.ended(items);
    onEnded(items, ledger.dropped);
  }, begun);
  const watch: DrainWatch = new DrainWatch({
    epoch: old.number,
    startedAt: old.meta.drainingSince ?? now(),
    policy,
    sources,
    onVerdict,
    onEstimate: (firstEstimate) => {
      // One that an earlier agent noted of this drain is the first; one of a drain that was taken back is none.
      const known = old.meta.firstEstimate?.at ?? Number.NEGATIVE_INFINITY;
      if (known < (watch.orderAppliedAt ?? 0)) old.update({ firstEstimate });
    },
    ledger,
    forecast,
    log,
    now,
  });
  old.drain = watch;
  if (begun) {
    forecast.ended(begun.items);
    for (const [id, one] of cutBefore(begun.items)) watch.deeds.cut.set(id, one);
  }
  return {
    watch,
    close(crashed) {
      ledger.close(watch.deeds, now(), crashed);
      try {
        forecast.save();
      } catch (error) {
        log('warn', 'what this drain taught could not be written', { error: String(error) });
      }
    },
  };
}

/** Has `obey` do an order that is newer than the one in force, and tells the controller. */
export function takeOrder(
  { log, now, send }: FrontContext,
  old: AnyEpoch | undefined,
  { given, via }: { readonly given: DrainOrder; readonly via: 'xds' | 'link' | 'local' },
  obey: (order: DrainOrder, at: number) => void,
): void {
  if (!old?.drain || given.epoch !== old.number) {
    log('warn', 'drain order ignored: the epoch does not drain', { epoch: old?.number, order: given.epoch, via });
    return;
  }
  if (old.meta.order && given.version <= old.meta.order.version) return;
  const order = { ...given, policy: completePolicy(given.policy) };
  const at = now();
  // Of a drain that was taken back nothing counts: graces begin with the next order.
  const since = old.meta.order?.action === 'drain' ? old.meta.orderAppliedAt : undefined;
  old.update({ order, orderAppliedAt: since ?? at });
  obey(order, at);
  log('info', 'drain order applied', { epoch: old.number, version: order.version, action: order.action, via });
  send({ type: 'orderApplied', upgradeId: order.upgradeId, epoch: old.number, version: order.version, via, at });
}

/** The order that an agent gives where nobody else does. */
export function ownOrder(old: AnyEpoch, upgradeId: string, policy: DrainPolicy, issuedAt: number): DrainOrder {
  return { v: 1, upgradeId, epoch: old.number, version: 0, action: 'drain', policy, cutoffAgeMs: 0, issuedAt };
}

/** Tells the controller; false when its end is decided already, and the verdict of no use to anybody. */
export function tellVerdict({ send, log }: FrontContext, old: AnyEpoch, verdict: Verdict): boolean {
  if (isResetting(old)) return false;
  log('debug', 'verdict', { epoch: old.number, safe: verdict.safe, summary: verdict.summary });
  send({ type: 'verdict', upgradeId: old.meta.endedBy ?? '', epoch: old.number, verdict });
  return true;
}
