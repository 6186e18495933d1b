import { join } from 'node:path';
import {
  type CutConnection,
  completePolicy,
  type DrainOrder,
  type DrainPolicy,
  SluiceError,
  type Verdict,
} from '@sluice/contract';
import { DrainWatch } from '../../epochs/drain-watch.ts';
import type { ResetReport } from '../../epochs/folder.ts';
import { Forecast } from '../../epochs/forecast.ts';
import { Ledger } from '../../epochs/ledger.ts';
import { announce, type CommandContext } from './context.ts';
import { type CommandEpoch, CommandFolder } from './epoch.ts';
import { epochsFolder } from './start.ts';

/** With no order from anybody after this long, the agent gives its own. */
const OWN_ORDER_AFTER_MS = 10_000;

/**
 * The old epochs: their verdicts by the kernel alone, and their end. There is no lever from outside: the proxy's own soft
 * stop has told its connections to leave, so an order is in force from the moment it comes.
 */
export class Drains {
  readonly #context: CommandContext;
  readonly #ledgers = new Map<number, Ledger>();
  readonly #timers = new Map<number, NodeJS.Timeout>();

  constructor(context: CommandContext) {
    this.#context = context;
  }

  /** `old` accepts no more. Idempotent; also goes on with a drain that an earlier agent began. */
  begin(old: CommandEpoch, upgradeId: string, given: DrainPolicy, alone = this.#context.alone): void {
    if (old.drain) return;
    const { now, log, send, config } = this.#context;
    const policy = completePolicy(given);
    if (old.meta.drainingSince === undefined) {
      const oldConnections = countOf(old);
      old.update({
        state: 'draining',
        drainingSince: now(),
        endedBy: upgradeId,
        policy,
        ...(oldConnections !== undefined && { oldConnections }),
      });
    }
    const forecast = new Forecast(join(epochsFolder(config.dir), 'lifetimes.json'), () => watch.policy);
    const ledger: Ledger = new Ledger((items) => {
      forecast.ended(items);
      send({ type: 'ended', upgradeId, epoch: old.number, items, dropped: ledger.dropped });
    });
    const watch: DrainWatch = new DrainWatch({
      epoch: old.number,
      startedAt: old.meta.drainingSince ?? now(),
      policy,
      sources: old.sources(now),
      onVerdict: (verdict) => this.#onVerdict(old, verdict, alone),
      ledger,
      forecast,
      log,
      now,
    });
    old.drain = watch;
    this.#ledgers.set(old.number, ledger);
    void old.gone.then(() => watch.poke());
    if (old.meta.order) watch.applied(old.meta.order, now());
    else {
      const own = setTimeout(
        () => this.apply(ownOrder(old, upgradeId, policy, now()), 'local'),
        alone ? 0 : OWN_ORDER_AFTER_MS,
      );
      this.#timers.set(old.number, own);
    }
    announce(this.#context);
  }

  apply(order: DrainOrder, via: 'link' | 'local'): void {
    const { epochs, log, now, send } = this.#context;
    const old = epochs.get(order.epoch);
    if (!old?.drain) {
      log('warn', 'drain order ignored: the epoch does not drain', { order: order.epoch, via });
      return;
    }
    if (old.meta.order && order.version <= old.meta.order.version) return;
    const at = now();
    const complete = { ...order, policy: completePolicy(order.policy) };
    old.update({ order: complete });
    old.drain.applied(complete, at);
    log('info', 'drain order applied', { epoch: old.number, version: order.version, action: order.action, via });
    send({ type: 'orderApplied', upgradeId: order.upgradeId, epoch: old.number, version: order.version, via, at });
  }

  /** Judged once more, then ended. Throws RESET_PROTECTED; repeating it answers with the first result. */
  async reset(
    upgradeId: string,
    number: number,
    override?: { readonly by: string; readonly reason: string },
  ): Promise<ResetReport> {
    const { epochs, now, send, log, spec, config } = this.#context;
    const old = epochs.get(number);
    const done = new CommandFolder(epochsFolder(config.dir), number).read()?.resetReport;
    if (done) {
      send({ type: 'reset', upgradeId, epoch: number, ...done });
      return done;
    }
    if (!old?.drain) {
      const found = old?.meta.state ?? 'unknown';
      throw new SluiceError('PHASE_REFUSED', `expected epoch ${number} to be draining, found it ${found}`);
    }
    const verdict = await old.drain.judge();
    if (!verdict.safe && !override) {
      old.drain.poke();
      throw new SluiceError(
        'RESET_PROTECTED',
        `expected no protected connection on epoch ${number}, found ${verdict.summary}`,
      );
    }
    const held = old.drain.wouldBeCut();
    for (const one of held) old.drain.deeds.cut.set(one.connection.id, one);
    const cut: CutConnection[] = held.map(({ connection, reason, rule, released }) => ({
      ...connection,
      reason,
      rule,
      ...(released !== undefined && { released }),
    }));
    this.#clear(old);
    await old.end(spec.endSignal);
    this.#ledgers.get(number)?.close(old.drain.deeds, now(), false);
    this.#ledgers.delete(number);
    const total = old.meta.oldConnections ?? cut.length;
    const report: ResetReport = { at: now(), old: total, drained: Math.max(0, total - cut.length), cut };
    old.update({ resetReport: report });
    epochs.remove(old);
    log('info', 'old epoch reset', { epoch: number, old: total, cut: cut.length, override });
    send({ type: 'reset', upgradeId, epoch: number, ...report });
    announce(this.#context);
    return report;
  }

  /** Lets go of every drain without ending it. */
  stop(): void {
    for (const epoch of this.#context.epochs.all()) this.#clear(epoch);
  }

  #onVerdict(old: CommandEpoch, verdict: Verdict, alone: boolean): void {
    const { send, log } = this.#context;
    const upgradeId = old.meta.endedBy ?? '';
    log('debug', 'verdict', { epoch: old.number, safe: verdict.safe, summary: verdict.summary });
    send({ type: 'verdict', upgradeId, epoch: old.number, verdict });
    if (!alone || !verdict.safe) return;
    this.reset(upgradeId, old.number).catch((error) => log('warn', 'reset refused', { error: String(error) }));
  }

  #clear(old: CommandEpoch): void {
    clearTimeout(this.#timers.get(old.number));
    this.#timers.delete(old.number);
    old.drain?.stop();
  }
}

function ownOrder(old: CommandEpoch, upgradeId: string, policy: DrainPolicy, issuedAt: number): DrainOrder {
  return { v: 1, upgradeId, epoch: old.number, version: 0, action: 'drain', policy, cutoffAgeMs: 0, issuedAt };
}

function countOf(old: CommandEpoch): number | undefined {
  try {
    return old.group.sockets().length;
  } catch {
    return undefined;
  }
}
