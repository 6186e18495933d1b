import { type CutConnection, type HeldConnection, SluiceError } from '@sluice/contract';
import type { DrainWatch } from '../epochs/drain-watch.ts';
import type { Epoch } from '../epochs/epoch.ts';
import type { ResetReport } from '../epochs/folder.ts';
import { announceEpochs, type KeeperContext } from './context.ts';

/** Those that are cut go one after the other, so that they do not all come back at once; after this all at once. */
const CUT_MS = 10_000;
const CUT_TICK_MS = 100;

export interface ResetWish {
  readonly upgradeId: string;
  readonly epoch: number;
  readonly override?: { readonly by: string; readonly reason: string } | undefined;
  /** For the record, where this agent decides it by itself. */
  readonly why?: string | undefined;
  /** Longest time for the cut of what is left. */
  readonly cutMs?: number | undefined;
}

const running = new WeakMap<Epoch, Promise<ResetReport>>();

/**
 * Ends an old epoch. Judged again first: the permission may be a moment old. `before` is called when it is certain,
 * with what the reset has cut. Throws RESET_PROTECTED when protected connections are left and there is no override.
 * Repeating it answers with the first result.
 */
export async function resetEpoch(
  context: KeeperContext,
  wish: ResetWish,
  ended: (old: Epoch) => void,
): Promise<ResetReport> {
  const { registry, send } = context;
  const { upgradeId, epoch: number, override } = wish;
  const folder = registry.folders().find((one) => one.epoch === number);
  const done = folder?.readMeta()?.resetReport;
  const old = registry.get(number);
  if (done && (!old || old.meta.state === 'ended')) {
    send({ type: 'reset', upgradeId, epoch: number, ...done });
    return done;
  }
  if (!old?.drain) {
    const found = old?.meta.state ?? 'unknown';
    throw new SluiceError('PHASE_REFUSED', `expected epoch ${number} to be draining, found it ${found}`);
  }
  const begun = running.get(old);
  if (begun) return begun;
  const verdict = await old.drain.judge();
  if (!verdict.safe && !override) {
    old.drain.poke();
    throw new SluiceError(
      'RESET_PROTECTED',
      `expected no protected connection on epoch ${number}, found ${verdict.summary}`,
    );
  }
  const reset = running.get(old) ?? endIt(context, old, old.drain, wish, ended);
  running.set(old, reset);
  return reset;
}

/** The reset itself, decided. */
async function endIt(
  context: KeeperContext,
  old: Epoch,
  drain: DrainWatch,
  { upgradeId, epoch: number, override, why, cutMs = CUT_MS }: ResetWish,
  ended: (old: Epoch) => void,
): Promise<ResetReport> {
  const { registry, now, send, log } = context;
  const cut = drain.wouldBeCut();
  const total = old.meta.oldConnections ?? cut.length;
  for (const one of cut) drain.deeds.cut.set(one.connection.id, one);
  await cutInTurn(old, cut, cutMs);
  drain.stop();
  await old.end();
  ended(old);
  const report: ResetReport = {
    at: now(),
    old: total,
    drained: Math.max(0, total - cut.length),
    cut: cut.map(cutOf),
    ...(why !== undefined && cut.length > 0 && { why }),
  };
  old.update({ resetReport: report });
  registry.remove(old);
  log('info', 'old epoch reset', { epoch: number, cut: cut.length, override });
  send({ type: 'reset', upgradeId, epoch: number, ...report });
  announceEpochs(context);
  return report;
}

function cutOf({ connection, reason, rule, released }: HeldConnection): CutConnection {
  return { ...connection, reason, rule, ...(released !== undefined && { released }) };
}

/** In policy's order, at the rate at which connections are told to leave. */
async function cutInTurn(old: Epoch, cut: readonly HeldConnection[], withinMs: number): Promise<void> {
  const { perSecond } = old.drain?.policy.pacing ?? { perSecond: 0 };
  const each = Math.max(perSecond * (CUT_TICK_MS / 1_000), cut.length / (withinMs / CUT_TICK_MS));
  if (perSecond === 0 || cut.length <= each) return;
  const sources = old.sources(Date.now);
  for (let done = 0; done < cut.length; done += each) {
    const ids = cut.slice(Math.floor(done), Math.floor(done + each)).map((one) => one.connection.id);
    sources.cut?.(ids);
    await Promise.race([new Promise((resolve) => setTimeout(resolve, CUT_TICK_MS)), old.gone]);
  }
}
