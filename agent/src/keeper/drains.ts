import { completePolicy, type DrainOrder, type DrainPolicy, tellsAnybody, type Verdict } from '@sluice/contract';
import { wasmPath } from '@sluice/wasm-filter';
import type { Epoch } from '../epochs/epoch.ts';
import type { ResetReport } from '../epochs/folder.ts';
import { writeOrder } from '../epochs/order-file.ts';
import { askPeerLingering } from '../handoff/peer.ts';
import { pressureForAll, writePressure } from '../levers/pressure.ts';
import { rateOf } from '../pacing/rate.ts';
import { readEcdsOrder } from '../witnesses/ecds-order.ts';
import { announceEpochs, type KeeperContext } from './context.ts';
import {
  noteDrain,
  type OpenDrain,
  OWN_ORDER_AFTER_MS,
  openDrain,
  ownOrder,
  takeOrder,
  tellVerdict,
} from './drain-parts.ts';
import { EndedOutbox } from './ended.ts';
import { startPacing } from './pace.ts';
import { type ResetWish, resetEpoch } from './resets.ts';
import { SlotBudget } from './slot-budget.ts';

/** An order by the link waits this long for the same order by xDS. */
const XDS_FIRST_MS = 1_000;
/** An Envoy without the filter relays nothing: its admin is asked for the order, all through the drain. */
const ORDER_LOOK_MS = 250;
/** How long the filter sends deltas after a `subscribe`; renewed while the drain goes on. */
const SUBSCRIBE_MS = 60_000;

/** What is held for one drain besides its watch. */
interface Draining {
  readonly timers: Set<NodeJS.Timeout>;
  readonly close: OpenDrain['close'];
  readonly ended: EndedOutbox;
}

/** The old epochs of this slot: their orders, their verdicts, their end. */
export class Drains {
  readonly #context: KeeperContext;
  readonly #draining = new Map<number, Draining>();
  readonly #budget: SlotBudget;

  constructor(context: KeeperContext) {
    this.#context = context;
    const { shared, slot } = context.config;
    this.#budget = new SlotBudget(context, shared === undefined ? undefined : () => askPeerLingering(shared, slot));
  }

  /** `old` does not accept any more. Idempotent; also resumes a drain that an earlier agent began. */
  begin(old: Epoch, upgradeId: string, given: DrainPolicy, authority = { alone: this.#context.alone }): void {
    if (old.drain) return;
    const { now } = this.#context;
    const { alone } = authority;
    const policy = completePolicy(given);
    noteDrain(old, upgradeId, policy, now());
    const ended = new EndedOutbox(this.#context, old, upgradeId);
    const { watch, close } = openDrain(this.#context, old, {
      policy,
      onVerdict: (verdict) => this.#onVerdict(old, verdict, alone),
      onEnded: (items, dropped) => ended.add(items, dropped),
      begun: ended.begun(),
    });
    this.#draining.set(old.number, { timers: new Set(), close, ended });
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
    takeOrder(this.#context, old, { given, via }, (order, at) => this.#obey(old, order, at, false));
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
    watch.foretell();
    const begun = resumed || before?.action === 'drain';
    startPacing(this.#context, old, order, begun)
      .catch((error: unknown) => {
        // Nobody may stay untold because a look failed: all at once, as without pacing.
        const then = tellsAnybody(old.meta.version) ? 'all are told at once' : 'nobody is told';
        this.#context.log('error', `pacing failed: ${then}`, { epoch: old.number, error: String(error) });
        if (tellsAnybody(old.meta.version)) writePressure(old.folder.pressure, pressureForAll());
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
    const order = ownOrder(old, upgradeId, old.drain.policy, this.#context.now());
    // Where a file feeds the slot, it brings the drain's filter, which knows the requests in flight.
    if (old.meta.wasm) writeOrder(old.folder, order, wasmPath(), old.meta.leave === true);
    this.apply(old, order, 'local');
  }

  #onVerdict(old: Epoch, verdict: Verdict, alone: boolean): void {
    if (!tellVerdict(this.#context, old, verdict)) return;
    this.#budget.weigh();
    // What policy gives up at its limit is not protected any more: the verdict says so.
    if (alone && verdict.safe) {
      const { log } = this.#context;
      this.reset(old.meta.endedBy ?? '', old.number).catch((error) =>
        log('warn', 'reset refused', { error: String(error) }),
      );
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
    this.#budget.stop();
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
    draining.close(crashed);
    draining.ended.flush();
    this.#clear(old);
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
