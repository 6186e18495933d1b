import { setTimeout as delay } from 'node:timers/promises';
import { type CutConnection, type HeldConnection, SluiceError, type Verdict } from '@sluice/contract';
import type { DrainWatch } from '../epochs/drain-watch.ts';
import type { AnyEpoch } from '../epochs/live-epoch.ts';
import type { ResetReport } from '../epochs/run-folder.ts';
import { announceEpochs, type FrontContext } from './front.ts';

/** Those that are cut go one after the other, so that they do not all come back at once; after this all at once. */
const CUT_MS = 10_000;
const CUT_TICK_MS = 100;

export interface ResetWish {
  readonly upgradeId: string;
  readonly epoch: number;
  readonly override?: { readonly by: string; readonly reason: string } | undefined;
  /** For the record, where this agent decides it by itself: the override is nobody's then. */
  readonly why?: string | undefined;
  /** Longest time for the cut of what is left. */
  readonly cutMs?: number | undefined;
}

/** Those that were cut go from one witness before the other; after this they are taken at their word. */
const SETTLED_MS = 1_000;

const running = new WeakMap<AnyEpoch, Promise<ResetReport>>();

/** Its end has been decided: what it is judged to be meanwhile is of no use to anybody. */
export function isResetting(old: AnyEpoch): boolean {
  return running.has(old);
}

/**
 * Ends an old epoch. Judged again first: the permission may be a moment old. `before` is called when it is certain,
 * with what the reset has cut. Throws RESET_PROTECTED when protected connections are left and there is no override.
 * Repeating it answers with the first result.
 */
export async function resetEpoch<E extends AnyEpoch>(
  context: FrontContext<E>,
  wish: ResetWish,
  ended: (old: E) => void,
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
    old.drain.tellAgain();
    throw refused(number, verdict);
  }
  const { drain } = old;
  const reset =
    running.get(old) ??
    endIt(context, old, drain, wish, ended).catch((error: unknown) => {
      running.delete(old);
      drain.tellAgain();
      throw error;
    });
  running.set(old, reset);
  return reset;
}

function refused(epoch: number, { summary }: Verdict): SluiceError {
  return new SluiceError('RESET_PROTECTED', `expected no protected connection on epoch ${epoch}, found ${summary}`);
}

/** The reset itself, decided. */
async function endIt<E extends AnyEpoch>(
  context: FrontContext<E>,
  old: E,
  drain: DrainWatch,
  { upgradeId, epoch: number, override, why, cutMs = CUT_MS }: ResetWish,
  ended: (old: E) => void,
): Promise<ResetReport> {
  const { registry, now, send, log } = context;
  const first = drain.wouldBeCut();
  // Before the first cut: should this agent die in the middle, its successor answers for it.
  if (override && why === undefined) old.update({ override: { ...override, at: now() } });
  const given = old.meta.override;
  for (const one of first) drain.deeds.cut.set(one.connection.id, one);
  // An override may come before anything was said of when each would have ended.
  drain.foretell();
  if (await cutInTurn(old, first, cutMs)) await lookAgain(drain, number, override !== undefined);
  drain.stop();
  await old.end();
  ended(old);
  const cut = [...drain.deeds.cut.values()];
  const total = old.meta.oldConnections ?? cut.length;
  const report: ResetReport = {
    at: now(),
    old: total,
    drained: Math.max(0, total - cut.length),
    cut: cut.map(cutOf),
    ...(why !== undefined && cut.length > 0 && { why }),
    ...(given && { override: given }),
  };
  old.update({ resetReport: report });
  registry.remove(old);
  log('info', 'old epoch reset', { epoch: number, old: total, cut: cut.length, override });
  send({ type: 'reset', upgradeId, epoch: number, ...report });
  announceEpochs(context);
  return report;
}

function cutOf({ connection, reason, rule, released }: HeldConnection): CutConnection {
  return { ...connection, reason, rule, ...(released !== undefined && { released }) };
}

/**
 * Seconds have passed: to one that held nothing a request may have come. What is protected now is waited for, unless
 * somebody has overridden that; what is not is named too. Throws RESET_PROTECTED.
 */
async function lookAgain(drain: DrainWatch, epoch: number, overridden: boolean): Promise<void> {
  const { cut } = drain.deeds;
  let verdict = await drain.judge();
  for (let waited = 0; !verdict.safe && !overridden && waited < SETTLED_MS; waited += CUT_TICK_MS) {
    await delay(CUT_TICK_MS);
    verdict = await drain.judge();
  }
  const left = drain.wouldBeCut();
  if (!verdict.safe && !overridden) {
    for (const { connection } of left) cut.delete(connection.id);
    throw refused(epoch, verdict);
  }
  for (const [id, { reason }] of cut) if (reason === 'unseen') cut.delete(id);
  for (const one of left) cut.set(one.connection.id, one);
}

/** In policy's order, at the rate at which connections are told to leave. True where that took its time. */
async function cutInTurn(old: AnyEpoch, cut: readonly HeldConnection[], withinMs: number): Promise<boolean> {
  const { perSecond } = old.drain?.policy.pacing ?? { perSecond: 0 };
  const each = Math.max(perSecond * (CUT_TICK_MS / 1_000), cut.length / (withinMs / CUT_TICK_MS));
  if (perSecond === 0 || cut.length <= each) return false;
  const sources = old.sources(Date.now);
  if (sources.cut === undefined) return false;
  let gone = false;
  void old.gone.then(() => {
    gone = true;
  });
  for (let done = 0; done < cut.length && !gone; done += each) {
    const ids = cut.slice(Math.floor(done), Math.floor(done + each)).map((one) => one.connection.id);
    sources.cut(ids);
    await Promise.race([delay(CUT_TICK_MS), old.gone]);
  }
  return !gone;
}
