import { type Connection, type DrainOrder, type DrainPolicy, SluiceError, type Verdict } from '@sluice/contract';
import { drainTypedConfig } from '@sluice/contract/presets/index';
import { wasmPath } from '@sluice/wasm-filter';
import { DrainWatch } from '../epochs/drain-watch.ts';
import type { Epoch } from '../epochs/epoch.ts';
import { type ResetReport, writeAtomically } from '../epochs/folder.ts';
import { orderFile } from '../epochs/order-file.ts';
import { pressureForCutoff, writePressure } from '../levers/pressure.ts';
import { readEcdsOrder } from '../witnesses/ecds-order.ts';
import { readKernel } from '../witnesses/kernel.ts';
import { announceEpochs, type KeeperContext } from './context.ts';

/** An order by the link waits this long for the same order by xDS. */
const XDS_FIRST_MS = 1_000;
/** With no order from anybody after this long, the agent gives its own: the drain must not hang on a dead controller. */
const OWN_ORDER_AFTER_MS = 10_000;
/** An Envoy without the filter relays nothing: its admin is asked for the order, all through the drain. */
const ORDER_LOOK_MS = 250;
/** How long the filter sends deltas after a `subscribe`; renewed while the drain goes on. */
const SUBSCRIBE_MS = 60_000;
const DEFAULT_MAX_CONNECTION_DURATION_MS = 30 * 24 * 3_600_000;

/** The old epochs of this slot: their orders, their verdicts, their end. */
export class Drains {
  readonly #context: KeeperContext;
  readonly #timers = new Map<number, NodeJS.Timeout[]>();

  constructor(context: KeeperContext) {
    this.#context = context;
  }

  /** `old` does not accept any more. Idempotent; also resumes a drain that an earlier agent began. */
  begin(old: Epoch, upgradeId: string, policy: DrainPolicy, authority = { alone: this.#context.alone }): void {
    if (old.drain) return;
    const { now, log } = this.#context;
    const { alone } = authority;
    if (old.meta.drainingSince === undefined) {
      old.update({ state: 'draining', drainingSince: now(), endedBy: upgradeId, policy, ...countOf(old) });
    }
    const watch = new DrainWatch({
      epoch: old.number,
      startedAt: old.meta.drainingSince ?? now(),
      policy,
      sources: old.sources(now),
      onVerdict: (verdict) => this.#onVerdict(old, verdict, alone),
      log,
      now,
    });
    old.drain = watch;
    old.table.onChange = () => watch.poke();
    old.table.onOrder = (order) => this.apply(old, order, 'xds');
    old.table.subscribe(SUBSCRIBE_MS);
    void old.gone.then(() => watch.poke());
    const resumed = old.meta.order;
    if (resumed) {
      writePressure(old.folder.pressure, pressureOf(resumed));
      watch.applied(resumed, old.meta.orderAppliedAt ?? now());
    } else {
      this.#later(old, alone ? 0 : OWN_ORDER_AFTER_MS, () => this.#ownOrder(old, upgradeId));
    }
    if (!old.meta.wasm && !alone) {
      this.#keepTimer(
        old,
        setInterval(() => void this.#lookForOrder(old), ORDER_LOOK_MS),
      );
    }
    const renew = setInterval(() => old.table.subscribe(SUBSCRIBE_MS), SUBSCRIBE_MS / 2);
    this.#keepTimer(old, renew);
    announceEpochs(this.#context);
  }

  /** The order as it came over the link: the fallback for one that Envoy did not bring. */
  applyLater(order: DrainOrder): void {
    const old = this.#context.registry.get(order.epoch);
    if (old) this.#later(old, XDS_FIRST_MS, () => this.apply(old, order, 'link'));
  }

  /** The agent's part of an order: the pressure. An order that is not newer than the one in force does nothing. */
  apply(old: Epoch, order: DrainOrder, via: 'xds' | 'link' | 'local'): void {
    const { log, now, send } = this.#context;
    if (order.epoch !== old.number || !old.drain) {
      log('warn', 'drain order ignored: the epoch does not drain', { epoch: old.number, order: order.epoch, via });
      return;
    }
    if (old.meta.order && order.version <= old.meta.order.version && old.meta.order.upgradeId === order.upgradeId)
      return;
    const at = now();
    writePressure(old.folder.pressure, pressureOf(order));
    old.update({ order, orderAppliedAt: old.meta.orderAppliedAt ?? at });
    old.drain.applied(order, at);
    log('info', 'drain order applied', { epoch: old.number, version: order.version, action: order.action, via });
    send({ type: 'orderApplied', upgradeId: order.upgradeId, epoch: old.number, version: order.version, via, at });
  }

  async #lookForOrder(old: Epoch): Promise<void> {
    const order = await readEcdsOrder(old.admin).catch(() => undefined);
    if (order) this.apply(old, order, 'xds');
  }

  #ownOrder(old: Epoch, upgradeId: string): void {
    if (old.meta.order || !old.drain) return;
    const policy = old.drain.policy;
    const issuedAt = this.#context.now();
    const order: DrainOrder = {
      v: 1,
      upgradeId,
      epoch: old.number,
      version: 0,
      action: 'drain',
      policy,
      cutoffAgeMs: 0,
      issuedAt,
    };
    // Where a file feeds the slot, it brings the drain's filter, which knows the requests in flight.
    if (old.meta.wasm)
      writeAtomically(old.folder.order, orderFile(drainTypedConfig(wasmPath(), JSON.stringify(order))));
    this.apply(old, order, 'local');
  }

  #onVerdict(old: Epoch, verdict: Verdict, alone: boolean): void {
    const { send, log } = this.#context;
    const upgradeId = old.meta.endedBy ?? '';
    log('debug', 'verdict', { epoch: old.number, safe: verdict.safe, summary: verdict.summary });
    send({ type: 'verdict', upgradeId, epoch: old.number, verdict });
    if (alone && (verdict.safe || (verdict.pastDeadline && old.drain?.policy.atDeadline === 'reset'))) {
      const override = verdict.safe ? undefined : { by: 'policy', reason: 'maximum drain time is over' };
      this.reset(upgradeId, old.number, override).catch((error) =>
        log('warn', 'reset refused', { error: String(error) }),
      );
    }
  }

  /**
   * Ends an old epoch. Judged again first: the permission may be a moment old. Throws RESET_PROTECTED when protected
   * connections are left and there is no override. Repeating it answers with the first result.
   */
  async reset(upgradeId: string, number: number, override?: { by: string; reason: string }): Promise<ResetReport> {
    const { registry, now, send, log } = this.#context;
    const done = registry
      .folders()
      .find((f) => f.epoch === number)
      ?.readMeta()?.resetReport;
    const old = registry.get(number);
    if (done && (!old || old.meta.state === 'ended')) {
      send({ type: 'reset', upgradeId, epoch: number, ...done });
      return done;
    }
    if (!old?.drain) {
      throw new SluiceError(
        'PHASE_REFUSED',
        `expected epoch ${number} to be draining, found it ${old?.meta.state ?? 'unknown'}`,
      );
    }
    const verdict = await old.drain.judge();
    if (!verdict.safe && !override) {
      old.drain.poke();
      throw new SluiceError(
        'RESET_PROTECTED',
        `expected no protected connection on epoch ${number}, found ${verdict.summary}`,
      );
    }
    const cut: Connection[] = verdict.safe ? [] : verdict.held.filter((h) => h.protected).map((h) => h.connection);
    const total = old.meta.oldConnections ?? cut.length;
    this.#clear(old);
    await old.end();
    const report: ResetReport = { at: now(), old: total, drained: Math.max(0, total - cut.length), cut };
    old.update({ resetReport: report });
    registry.remove(old);
    log('info', 'old epoch reset', { epoch: number, cut: cut.length, override });
    send({ type: 'reset', upgradeId, epoch: number, ...report });
    announceEpochs(this.#context);
    return report;
  }

  /** Lets go of every drain without ending it. */
  stop(): void {
    for (const epoch of this.#context.registry.all()) this.#clear(epoch);
  }

  #later(old: Epoch, ms: number, task: () => void): void {
    this.#keepTimer(old, setTimeout(task, ms));
  }

  #keepTimer(old: Epoch, timer: NodeJS.Timeout): void {
    this.#timers.set(old.number, [...(this.#timers.get(old.number) ?? []), timer]);
  }

  #clear(old: Epoch): void {
    for (const timer of this.#timers.get(old.number) ?? []) clearTimeout(timer);
    this.#timers.delete(old.number);
  }
}

/** Its connections as of now; none known when the kernel can not tell. */
function countOf(old: Epoch): { readonly oldConnections?: number } {
  try {
    return { oldConnections: readKernel(old.process.pid, old.meta.listenAddresses ?? []).open };
  } catch {
    return {};
  }
}

/** The whole of the order that a file can do: which connections are told to leave, by age. */
function pressureOf(order: DrainOrder): number {
  if (order.action === 'stop' || !order.policy.http2.goaway) return 0;
  return pressureForCutoff(order.cutoffAgeMs, DEFAULT_MAX_CONNECTION_DURATION_MS);
}
