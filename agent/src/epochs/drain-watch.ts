import type { Connection, DrainOrder, DrainPolicy, Verdict, Witness } from '@sluice/contract';
import { closableIdle, computeVerdict, nextChangeAt } from '@sluice/contract';
import type { Log } from '../log.ts';

/** What a drain is judged by. Every call answers within a bound of its own. */
export interface DrainSources {
  readonly kernel: () => Promise<Witness>;
  /** `requestsActive` is the sum over all HCMs, when the admin connection can be heard. */
  readonly admin: () => Promise<{ readonly witness: Witness; readonly requestsActive?: number }>;
  readonly filter: () => { readonly witness: Witness; readonly connections: readonly Connection[] };
  /** Set where Envoy runs no filter: the connections as the kernel lists them. */
  readonly kernelList?: () => readonly Connection[];
  /** Bound of the requests in flight that the filter does not know of, where it can be had exactly. */
  readonly unknownInFlight?: () => number | undefined;
  /** Asks the filter to close these connections. */
  readonly close: (ids: readonly string[]) => void;
}

export interface DrainWatchOptions {
  readonly epoch: number;
  readonly startedAt: number;
  readonly policy: DrainPolicy;
  readonly sources: DrainSources;
  readonly onVerdict: (verdict: Verdict) => void;
  readonly log: Log;
  readonly now?: () => number;
}

/** Longest time between two looks: the kernel reports no event of its own. */
const LOOK_EVERY_MS = 1_000;
/** While witnesses differ, or only they say "left", a look follows soon: reports arrive 100 ms apart. */
const LOOK_AGAIN_MS = 50;
/** What only a count tells is looked at so often. */
const LOOK_SOON_MS = 200;
/** Reports of several workers come together; one look for all of them. */
const COALESCE_MS = 5;
/** A filter not heard for this long can not be heard. */
export const STALE_AFTER_MS = 3_000;

/**
 * Watches one draining epoch: gathers the witnesses whenever one of them changes, runs the pure verdict, closes the silent
 * idle connections whose grace is over, and reports each verdict.
 */
export class DrainWatch {
  verdict: Verdict | undefined;
  order: DrainOrder | undefined;
  orderAppliedAt: number | undefined;
  readonly #options: DrainWatchOptions;
  readonly #now: () => number;
  #timer: NodeJS.Timeout | undefined;
  #dueAt = Number.POSITIVE_INFINITY;
  #looking = false;
  #pokedWhileLooking = false;
  #stopped = false;
  #differences = 0;
  #waiting: (() => void)[] = [];

  constructor(options: DrainWatchOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.poke();
  }

  get policy(): DrainPolicy {
    return this.order?.policy ?? this.#options.policy;
  }

  /** Something changed: look soon. */
  poke(): void {
    if (this.#looking) this.#pokedWhileLooking = true;
    else this.#lookIn(COALESCE_MS);
  }

  applied(order: DrainOrder, at: number): void {
    this.order = order;
    this.orderAppliedAt = order.action === 'drain' ? (this.orderAppliedAt ?? at) : undefined;
    this.poke();
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

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
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

  /** Gathers all witnesses and judges. Also called at the reset, whose permission may be a moment old. */
  async judge(): Promise<Verdict> {
    const { sources } = this.#options;
    const [kernel, admin] = await Promise.all([sources.kernel(), sources.admin()]);
    const filter = sources.filter();
    const connections = sources.kernelList?.() ?? filter.connections;
    const unknownInFlight = sources.unknownInFlight?.();
    const input = {
      now: this.#now(),
      policy: this.policy,
      drainStartedAt: this.#options.startedAt,
      connections,
      ...(sources.kernelList && { listedBy: 'kernel' as const }),
      witnesses: [filter.witness, admin.witness, kernel],
      staleAfterMs: STALE_AFTER_MS,
      ...(this.order && { order: this.order }),
      ...(this.orderAppliedAt !== undefined && { orderAppliedAt: this.orderAppliedAt }),
      ...(unknownInFlight !== undefined && { unknownInFlight }),
    };
    const verdict = computeVerdict(input);
    const idle = closableIdle(input);
    if (idle.length > 0 && !this.#stopped) sources.close(idle);
    const next = nextChangeAt(input);
    if (next !== undefined) this.#lookIn(Math.max(COALESCE_MS, next - this.#now()));
    return verdict;
  }

  async #look(): Promise<void> {
    this.#looking = true;
    this.#pokedWhileLooking = false;
    try {
      const verdict = await this.judge();
      if (this.#stopped) return;
      const changed = materiallyDiffers(this.verdict, verdict);
      this.verdict = verdict;
      this.#differences = verdict.disagreement === undefined ? 0 : this.#differences + 1;
      if (changed) this.#options.onVerdict(verdict);
      if (verdict.safe) for (const done of this.#waiting.splice(0)) done();
    } catch (error) {
      this.#options.log('error', 'the drain could not be judged', { epoch: this.#options.epoch, error: String(error) });
    } finally {
      this.#looking = false;
    }
    this.#lookIn(this.#pokedWhileLooking ? COALESCE_MS : this.#nextLookMs());
  }

  #nextLookMs(): number {
    if (this.#differences > 0) return Math.min(LOOK_AGAIN_MS * 2 ** Math.min(this.#differences, 5), LOOK_EVERY_MS);
    // That the last request begun before the drain has ended is told by nobody: only the admin's sum says so.
    const ending = this.verdict?.held.some((h) => h.reason === 'may-hold-a-request' || h.reason === 'unseen');
    return ending || this.#options.sources.kernelList ? LOOK_SOON_MS : LOOK_EVERY_MS;
  }
}

/** Worth telling: anything but the times. */
function materiallyDiffers(a: Verdict | undefined, b: Verdict): boolean {
  if (a === undefined) return true;
  const shape = (v: Verdict) =>
    JSON.stringify([
      v.safe,
      v.total,
      v.protected,
      v.pastDeadline,
      v.disagreement,
      v.held.map((h) => [h.connection.id, h.reason, h.protected, h.connection.protocol]),
      v.witnesses.map((w) => [w.name, w.open, w.why]),
    ]);
  return shape(a) !== shape(b);
}
