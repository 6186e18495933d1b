import type {
  Connection,
  DrainOrder,
  DrainPolicy,
  EpochCost,
  Estimate,
  HeldConnection,
  Verdict,
  Witness,
} from '@sluice/contract';
import { allHeld, closableIdle, computeVerdict, nextChangeAt, type VerdictInput, wouldBeCut } from '@sluice/contract';
import type { Log } from '../log.ts';
import type { Pacer } from '../pacing/pacer.ts';
import { rateOf } from '../pacing/rate.ts';
import type { Forecast } from './forecast.ts';
import type { Deeds, Ledger } from './ledger.ts';

/** What a drain is judged by. Every call answers within a bound of its own. */
export interface DrainSources {
  /** Version of the Envoy, which the levers table is asked for; absent of another proxy, which tells its connections itself. */
  readonly envoy?: string;
  readonly kernel: () => Promise<Witness>;
  /** `requestsActive` is the sum over all HCMs, when the admin connection can be heard. */
  readonly admin: () => Promise<{ readonly witness: Witness; readonly requestsActive?: number }>;
  /** `complete`: every open connection is among them, and none that is not open. */
  readonly filter: () => {
    readonly witness: Witness;
    readonly connections: readonly Connection[];
    readonly complete?: boolean;
  };
  /** Set where Envoy runs no filter: the connections as the kernel lists them. */
  readonly kernelList?: () => readonly Connection[];
  /** The connections with what the kernel knows of answers that are on their way. */
  readonly answering?: (connections: readonly Connection[]) => readonly Connection[];
  /** It listens still. */
  readonly accepts?: () => boolean;
  /** Bound of the requests in flight that the filter does not know of, where it can be had exactly. */
  readonly unknownInFlight?: () => number | undefined;
  /** Asks the filter to close these connections. */
  readonly close: (ids: readonly string[]) => void;
  /** Marks these, so that each leaves with its next response. */
  readonly mark?: (ids: readonly string[]) => void;
  /** Ends these, whatever is on them. */
  readonly cut?: (ids: readonly string[]) => void;
  readonly cost?: (at: number) => EpochCost | undefined;
}

export interface DrainWatchOptions {
  readonly epoch: number;
  readonly startedAt: number;
  readonly policy: DrainPolicy;
  readonly sources: DrainSources;
  readonly onVerdict: (verdict: Verdict) => void;
  readonly ledger?: Ledger;
  readonly forecast?: Forecast;
  /** The first word on the whole drain's end, once the order is in force and it is known who is told when. */
  readonly onEstimate?: (estimate: Estimate) => void;
  readonly log: Log;
  readonly now?: () => number;
}

/** Longest time between two looks: the kernel reports no event of its own. */
const LOOK_EVERY_MS = 1_000;
/** While witnesses differ, or only they say "left", a look follows soon: reports arrive 100 ms apart. */
const LOOK_AGAIN_MS = 50;
/** What only a count tells is looked at so often. */
const LOOK_SOON_MS = 200;
/** Reports of several workers come together; one look for all of them, and the dearer a look the fewer of them. */
const COALESCE_MS = 5;
const COALESCE_PER_CONNECTION_MS = 0.04;
/** A filter not heard for this long can not be heard. */
export const STALE_AFTER_MS = 3_000;
/** So many may end between two reports. */
const FEW_LEFT = 5;
const FORECAST_EVERY_MS = 1_000;
const COST_EVERY_MS = 5_000;

/**
 * Watches one draining epoch: gathers the witnesses whenever one of them changes, runs the pure verdict, closes the silent
 * idle connections whose grace is over, and reports each verdict.
 */
export class DrainWatch {
  verdict: Verdict | undefined;
  order: DrainOrder | undefined;
  orderAppliedAt: number | undefined;
  /** Tells connections one after the other; undefined: all were told at once. */
  pacer: Pacer | undefined;
  /** The order whose pacer is being prepared: who is to be told first is being found out. */
  awaitsPacer: DrainOrder | undefined;
  /** The lingering epochs hold more than policy's budget, and this is the one to give up. */
  overBudget = false;
  readonly deeds: Deeds & { idleClosed: Set<string>; cut: Map<string, HeldConnection>; envoy?: string | undefined } = {
    idleClosed: new Set(),
    cut: new Map(),
    told: (connection) => this.pacer?.last(connection) ?? connection,
    expected: (id) => this.#options.forecast?.first(id),
  };
  readonly #options: DrainWatchOptions;
  readonly #now: () => number;
  #timer: NodeJS.Timeout | undefined;
  #dueAt = Number.POSITIVE_INFINITY;
  #looking = false;
  #pokedWhileLooking = false;
  #stopped = false;
  #differences = 0;
  #tellNext = false;
  #waiting: (() => void)[] = [];
  #onLook: (listed: boolean) => void = () => {};
  #input: VerdictInput | undefined;
  #listed = false;
  #accepts = false;
  #forecast: ReturnType<Forecast['look']> | undefined;
  #estimated = false;
  #cost: EpochCost | undefined;

  constructor(options: DrainWatchOptions) {
    this.#options = options;
    this.deeds.envoy = options.sources.envoy;
    this.#now = options.now ?? Date.now;
    this.poke();
  }

  get policy(): DrainPolicy {
    return this.order?.policy ?? this.#options.policy;
  }

  /** Something changed: look soon. */
  poke(): void {
    if (this.#looking) this.#pokedWhileLooking = true;
    else this.#lookIn(this.#coalesceMs());
  }

  /** Looks soon, and tells the verdict though it be the same: somebody did not go by the one before. */
  tellAgain(): void {
    this.#tellNext = true;
    this.poke();
  }

  applied(order: DrainOrder, at: number): void {
    this.order = order;
    this.orderAppliedAt = order.action === 'drain' ? (this.orderAppliedAt ?? at) : undefined;
    if (order.action === 'stop') {
      this.#estimated = false;
      this.#options.forecast?.forget();
    }
    this.poke();
  }

  /** Says when each will have ended, as of the last look: an order is in force from now on, and nobody has left by it yet. */
  foretell(): void {
    const { forecast } = this.#options;
    if (forecast === undefined || this.#input === undefined || this.orderAppliedAt === undefined) return;
    if (!this.#estimated) forecast.look(allHeld(this.#input), this.#untilTurnMs(this.#input), this.#now(), true);
  }

  /** True once the verdict is safe, false when `ms` are over before. */
  untilSafe(ms: number): Promise<boolean> {
    if (this.verdict?.safe) return Promise.resolve(true);
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), Math.max(0, ms));
      this.#waiting.push(() => {
        clearTimeout(timer);
        resolve(true);
      });
    });
  }

  /** True once the filter's list stands for every socket that is counted, false when `ms` are over before. */
  untilListed(ms: number): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), ms);
      this.#onLook = (listed) => {
        if (!listed) return;
        clearTimeout(timer);
        resolve(true);
      };
      this.poke();
    });
  }

  /** What a reset would cut, as of the last look, in the order in which policy gives it up. */
  wouldBeCut(): HeldConnection[] {
    return this.#input === undefined ? [] : wouldBeCut(this.#input);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.pacer?.stop();
  }

  #lookIn(ms: number): void {
    if (this.#stopped) return;
    const dueAt = this.#now() + ms;
    if (this.#timer !== undefined && this.#dueAt <= dueAt) return;
    clearTimeout(this.#timer);
    this.#dueAt = dueAt;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#look();
    }, ms);
  }

  #coalesceMs(): number {
    const { total = 0, protected: left = 0 } = this.verdict ?? {};
    // With several left the end is not near, and a look costs both Envoys and the kernel something under load.
    return (left > FEW_LEFT ? LOOK_SOON_MS : COALESCE_MS) + total * COALESCE_PER_CONNECTION_MS;
  }

  /** Gathers all witnesses and judges. Also called at the reset, whose permission may be a moment old. */
  async judge(): Promise<Verdict> {
    const input = await this.#gather();
    this.#input = input;
    const verdict = computeVerdict(input);
    const idle = closableIdle(input);
    if (idle.length > 0 && !this.#stopped) {
      for (const id of idle) this.deeds.idleClosed.add(id);
      this.#options.sources.close(idle);
    }
    const next = nextChangeAt(input);
    if (next !== undefined) this.#lookIn(Math.max(COALESCE_MS, next - this.#now()));
    return this.#withForecast(verdict, input);
  }

  async #gather(): Promise<VerdictInput> {
    const { sources, ledger } = this.#options;
    await this.pacer?.calm();
    const [kernel, admin] = await Promise.all([sources.kernel(), sources.admin()]);
    await this.pacer?.calm();
    const filter = sources.filter();
    const rows = sources.kernelList?.() ?? filter.connections;
    const listed = sources.answering?.(rows) ?? rows;
    const { pacer } = this;
    const unknownInFlight = sources.unknownInFlight?.();
    const input: VerdictInput = {
      now: this.#now(),
      policy: this.policy,
      envoy: sources.envoy,
      drainStartedAt: this.#options.startedAt,
      connections: pacer === undefined ? listed : listed.map((one) => pacer.annotate(one)),
      paced: pacer?.paced ?? this.awaitsPacer !== undefined,
      overBudget: this.overBudget,
      accepts: sources.accepts?.(),
      ...(sources.kernelList && { listedBy: 'kernel' as const }),
      witnesses: [filter.witness, admin.witness, kernel],
      staleAfterMs: STALE_AFTER_MS,
      ...(this.order && { order: this.order }),
      ...(this.orderAppliedAt !== undefined && { orderAppliedAt: this.orderAppliedAt }),
      ...(unknownInFlight !== undefined && { unknownInFlight }),
    };
    this.#accepts = input.accepts === true;
    // A process that is gone has no connection, and none of them has left: what it held has ended with it.
    const complete = sources.kernelList
      ? kernel.open !== undefined && kernel.why === undefined
      : filter.complete === true;
    this.#listed = complete;
    if (ledger && complete) ledger.look(allHeld(input), this.deeds, input.now, listed.length === kernel.open);
    return input;
  }

  #withForecast(verdict: Verdict, input: VerdictInput): Verdict {
    const { forecast, sources } = this.#options;
    const { now } = input;
    // Either way: a clock that was set back must not stop them.
    const since = (at = 0) => Math.abs(now - at);
    if (since(this.#cost?.at) >= COST_EVERY_MS) this.#cost = sources.cost?.(now) ?? this.#cost;
    const pacing = this.pacer?.progress();
    const extra = { ...(this.#cost && { cost: this.#cost }), ...(pacing && { pacing }) };
    if (forecast === undefined) return { ...verdict, ...extra };
    const begun = this.orderAppliedAt !== undefined;
    // While it is being prepared who is told when, the list may not be whole.
    const first = begun && this.awaitsPacer === undefined && !this.#estimated;
    if (first || verdict.safe || since(this.#forecast?.estimate.at) >= FORECAST_EVERY_MS) {
      this.#forecast = forecast.look(allHeld(input), this.#untilTurnMs(input), now, begun);
    }
    const { estimate, ends } = this.#forecast as ReturnType<Forecast['look']>;
    if (first && !verdict.safe) {
      this.#estimated = true;
      this.#options.onEstimate?.(estimate);
    }
    return { ...verdict, ...extra, estimate, held: verdict.held.map(ends) };
  }

  /** How long one that waits to be told waits for it, about. */
  #untilTurnMs({ connections }: VerdictInput): number {
    const { awaitsPacer, pacer } = this;
    const { perSecond, left } = awaitsPacer
      ? { perSecond: rateOf(awaitsPacer), left: connections.length }
      : (pacer?.progress() ?? { perSecond: 0, left: 0 });
    return perSecond > 0 ? (left / perSecond / 2) * 1_000 : 0;
  }

  async #look(): Promise<void> {
    this.#looking = true;
    this.#pokedWhileLooking = false;
    try {
      const verdict = await this.judge();
      if (this.#stopped) return;
      const changed = this.#tellNext || materiallyDiffers(this.verdict, verdict);
      this.#tellNext = false;
      this.verdict = verdict;
      this.#differences = verdict.disagreement === undefined ? 0 : this.#differences + 1;
      if (changed) this.#options.onVerdict(verdict);
      const unseen = verdict.held.some((one) => one.reason === 'unseen');
      this.#onLook(this.#listed && !unseen && verdict.disagreement === undefined);
      if (verdict.safe) for (const done of this.#waiting.splice(0)) done();
    } catch (error) {
      this.#options.log('error', 'the drain could not be judged', { epoch: this.#options.epoch, error: String(error) });
    } finally {
      this.#looking = false;
    }
    this.#lookIn(this.#pokedWhileLooking ? this.#coalesceMs() : this.#nextLookMs());
  }

  #nextLookMs(): number {
    if (this.#accepts) return LOOK_SOON_MS;
    if (this.#differences > 0) return Math.min(LOOK_AGAIN_MS * 2 ** Math.min(this.#differences, 5), LOOK_EVERY_MS);
    // That the last request begun before the drain has ended is told by nobody: only the admin's sum says so. Nor does
    // anybody tell that a client has taken the rest of its answer.
    const ending = this.verdict?.held.some(
      ({ reason, connection }) =>
        reason === 'may-hold-a-request' ||
        reason === 'unseen' ||
        (reason === 'request-in-flight' && connection.answering),
    );
    return ending || this.#options.sources.kernelList ? LOOK_SOON_MS : LOOK_EVERY_MS;
  }
}

/** Worth telling: anything but the times, and those of the forecast when they moved by more than a few seconds. */
function materiallyDiffers(a: Verdict | undefined, b: Verdict): boolean {
  if (a === undefined) return true;
  const shape = (v: Verdict) =>
    JSON.stringify([
      v.safe,
      v.total,
      v.protected,
      v.holding,
      v.limit,
      v.overBudget,
      v.disagreement,
      v.held.map((h) => [h.connection.id, h.reason, h.protected, h.connection.protocol, h.rule]),
      v.witnesses.map((w) => [w.name, w.open]),
      [v.pacing?.told, v.pacing?.perSecond, v.pacing?.strain, v.cost?.at],
      [v.estimate?.endsAt, v.estimate?.endsLate].map((at) => at && Math.round(at / 5_000)),
    ]);
  return shape(a) !== shape(b);
}
