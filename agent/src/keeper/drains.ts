import { join } from 'node:path';
import { completePolicy, type DrainOrder, type DrainPolicy, type Verdict } from '@sluice/contract';
import { wasmPath } from '@sluice/wasm-filter';
import { LINGERS_MS, overBudget } from '../epochs/cost.ts';
import { DrainWatch } from '../epochs/drain-watch.ts';
import type { Epoch } from '../epochs/epoch.ts';
import type { ResetReport } from '../epochs/folder.ts';
import { Forecast } from '../epochs/forecast.ts';
import { cutBefore, Ledger } from '../epochs/ledger.ts';
import { writeOrder } from '../epochs/order-file.ts';
import { pressureForAll, writePressure } from '../levers/pressure.ts';
import { readEcdsOrder } from '../witnesses/ecds-order.ts';
import { readKernel } from '../witnesses/kernel.ts';
import { announceEpochs, type KeeperContext } from './context.ts';
import { EndedOutbox } from './ended.ts';
import { rateOf, startPacing } from './pace.ts';
import { isResetting, type ResetWish, resetEpoch } from './resets.ts';

/** An order by the link waits this long for the same order by xDS. */
const XDS_FIRST_MS = 1_000;
/** With no order from anybody after this long, the agent gives its own: the drain must not hang on a dead controller. */
const OWN_ORDER_AFTER_MS = 10_000;
/** An Envoy without the filter relays nothing: its admin is asked for the order, all through the drain. */
const ORDER_LOOK_MS = 250;
/** How long the filter sends deltas after a `subscribe`; renewed while the drain goes on. */
const SUBSCRIBE_MS = 60_000;

/** What is held for one drain besides its watch. */
interface Draining {
  readonly timers: Set<NodeJS.Timeout>;
  readonly ledger: Ledger;
  readonly ended: EndedOutbox;
  readonly forecast: Forecast;
}

/** The old epochs of this slot: their orders, their verdicts, their end. */
export class Drains {
  readonly #context: KeeperContext;
  readonly #draining = new Map<number, Draining>();

  constructor(context: KeeperContext) {
    this.#context = context;
  }

  /** `old` does not accept any more. Idempotent; also resumes a drain that an earlier agent began. */
  begin(old: Epoch, upgradeId: string, given: DrainPolicy, authority = { alone: this.#context.alone }): void {
    if (old.drain) return;
    const { now, log, registry } = this.#context;
    const { alone } = authority;
    const policy = completePolicy(given);
    if (old.meta.policy === undefined) {
      // An agent that died in the middle of the handover has noted no more than since when.
      const drainingSince = old.meta.drainingSince ?? now();
      old.update({ state: 'draining', drainingSince, endedBy: upgradeId, policy });
      if (old.meta.oldConnections === undefined) old.update(countOf(old));
    }
    const ended = new EndedOutbox(this.#context, old, upgradeId);
    const begun = ended.begun();
    const forecast = new Forecast(join(registry.root, 'lifetimes.json'), () => watch.policy);
    const ledger: Ledger = new Ledger((items) => {
      forecast.ended(items);
      ended.add(items, ledger.dropped);
    }, begun);
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
    this.#draining.set(old.number, { timers: new Set(), ledger, ended, forecast });
    old.drain = watch;
    forecast.ended(begun.items);
    for (const [id, one] of cutBefore(begun.items)) watch.deeds.cut.set(id, one);
    old.table.onChange = () => watch.poke();
    old.table.onOrder = (order) => this.apply(old, order, 'xds');
    old.table.subscribe(SUBSCRIBE_MS);
    void old.gone.then(() => this.#gone(old));
    const resumed = old.meta.order;
    if (resumed)
      this.#obey(old, { ...resumed, policy: completePolicy(resumed.policy) }, old.meta.orderAppliedAt ?? now(), true);
    else this.#later(old, alone ? 0 : OWN_ORDER_AFTER_MS, () => this.#ownOrder(old, upgradeId));
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
  apply(old: Epoch, given: DrainOrder, via: 'xds' | 'link' | 'local'): void {
    const { log, now, send } = this.#context;
    if (given.epoch !== old.number || !old.drain) {
      log('warn', 'drain order ignored: the epoch does not drain', { epoch: old.number, order: given.epoch, via });
      return;
    }
    if (old.meta.order && given.version <= old.meta.order.version) return;
    const order = { ...given, policy: completePolicy(given.policy) };
    const at = now();
    // Of a drain that was taken back nothing counts: graces begin with the next order.
    const since = old.meta.order?.action === 'drain' ? old.meta.orderAppliedAt : undefined;
    old.update({ order, orderAppliedAt: since ?? at });
    this.#obey(old, order, at, false);
    log('info', 'drain order applied', { epoch: old.number, version: order.version, action: order.action, via });
    send({ type: 'orderApplied', upgradeId: order.upgradeId, epoch: old.number, version: order.version, via, at });
  }

  #obey(old: Epoch, order: DrainOrder, at: number, resumed: boolean): void {
    const watch = old.drain;
    if (watch === undefined) return;
    const before = watch.order;
    watch.applied(order, at);
    if (order.action === 'stop') {
      watch.awaitsPacer = undefined;
      watch.pacer?.stop();
      watch.pacer = undefined;
      writePressure(old.folder.pressure, 0);
      return;
    }
    // A new share of the same pacing goes on where it is.
    const same = before?.action === 'drain' && JSON.stringify(before.policy) === JSON.stringify(order.policy);
    if (same && before.cutoffAgeMs === order.cutoffAgeMs) {
      // One that is being prepared takes the newest rate when it is ready; begun anew each time it might never be.
      if (watch.awaitsPacer) return;
      if (watch.pacer) {
        watch.pacer.setRate(rateOf(order));
        return;
      }
    }
    watch.awaitsPacer = order;
    const begun = resumed || before?.action === 'drain';
    startPacing(this.#context, old, order, begun)
      .catch((error: unknown) => {
        // Nobody may stay untold because a look failed: all at once, as without pacing.
        this.#context.log('error', 'pacing failed: all are told at once', { epoch: old.number, error: String(error) });
        writePressure(old.folder.pressure, pressureForAll());
      })
      .finally(() => {
        // A newer order with another policy waits for its own.
        if (watch.awaitsPacer === order) watch.awaitsPacer = undefined;
        watch.poke();
      });
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
    if (old.meta.wasm) writeOrder(old.folder, order, wasmPath(), old.meta.leave === true);
    this.apply(old, order, 'local');
  }

  #onVerdict(old: Epoch, verdict: Verdict, alone: boolean): void {
    if (isResetting(old)) return;
    const { send, log } = this.#context;
    const upgradeId = old.meta.endedBy ?? '';
    log('debug', 'verdict', { epoch: old.number, safe: verdict.safe, summary: verdict.summary });
    send({ type: 'verdict', upgradeId, epoch: old.number, verdict });
    this.#budget();
    // What policy gives up at its limit is not protected any more: the verdict says so.
    if (alone && verdict.safe) {
      this.reset(upgradeId, old.number).catch((error) => log('warn', 'reset refused', { error: String(error) }));
    }
  }

  /** Ends an old epoch; see resetEpoch. */
  async reset(
    upgradeId: string,
    epoch: number,
    override?: { by: string; reason: string },
    more: Pick<ResetWish, 'why' | 'cutMs'> = {},
  ): Promise<ResetReport> {
    return resetEpoch(this.#context, { upgradeId, epoch, override, ...more }, (old) => this.#finish(old, false));
  }

  /** Lets go of every drain without ending it. */
  stop(): void {
    for (const epoch of this.#context.registry.all()) this.#clear(epoch);
  }

  /** Its end was nobody's wish: its connections are gone with it. */
  #gone(old: Epoch): void {
    old.drain?.poke();
    if (!old.ending) this.#finish(old, true);
  }

  #finish(old: Epoch, crashed: boolean): void {
    const draining = this.#draining.get(old.number);
    if (draining === undefined) return;
    draining.ledger.close(old.drain?.deeds ?? { idleClosed: new Set(), cut: new Map() }, this.#context.now(), crashed);
    draining.ended.flush();
    try {
      draining.forecast.save();
    } catch (error) {
      this.#context.log('warn', 'what this drain taught could not be written', { error: String(error) });
    }
    this.#clear(old);
  }

  /** Of the lingering epochs the cheapest are given up when all together hold more than policy allows. */
  #budget(): void {
    const lingering = this.#context.registry.all().flatMap(({ number, drain }) => {
      const { cost, holding } = drain?.verdict ?? {};
      if (drain === undefined || cost === undefined) return [];
      const { budgetMiB } = drain.policy.memory;
      const { privateBytes } = cost;
      const lingers = this.#context.now() - (drain.orderAppliedAt ?? Number.POSITIVE_INFINITY) >= LINGERS_MS;
      return [{ epoch: number, privateBytes, holding: holding ?? 0, since: number, budgetMiB, lingers }];
    });
    const over = overBudget(lingering);
    for (const { number, drain } of this.#context.registry.all()) {
      if (drain === undefined || drain.overBudget === over.includes(number)) continue;
      drain.overBudget = over.includes(number);
      this.#context.log(
        'warn',
        drain.overBudget ? 'over the memory budget: this epoch is given up' : 'within the memory budget again',
        { epoch: number },
      );
      drain.poke();
    }
  }

  #later(old: Epoch, ms: number, task: () => void): void {
    const { timers } = this.#draining.get(old.number) ?? {};
    if (timers === undefined) return;
    const timer = setTimeout(() => {
      // A drain may last for weeks, with an order each second.
      timers.delete(timer);
      task();
    }, ms);
    timers.add(timer);
  }

  #keepTimer(old: Epoch, timer: NodeJS.Timeout): void {
    this.#draining.get(old.number)?.timers.add(timer);
  }

  #clear(old: Epoch): void {
    for (const timer of this.#draining.get(old.number)?.timers ?? []) clearTimeout(timer);
    this.#draining.get(old.number)?.ended.flush();
    this.#draining.delete(old.number);
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
