import {
  type Connection,
  type DrainPolicy,
  FRESH_MS,
  leavesSomeAlone,
  type PacingProgress,
  treatmentOf,
} from '@sluice/contract';
import { pressureForAll, pressureForCutoff } from '../levers/pressure.ts';
import type { Log } from '../log.ts';
import { adaptRate, type Rate, rateAt } from './adapt.ts';
import {
  type Abilities,
  ageStep,
  canBeTold,
  creditAfter,
  markStep,
  type PaceMode,
  paceMode,
  sweepAge,
} from './plan.ts';
import type { Load, Usual } from './usual.ts';

const TICK_MS = 100;
/**
 * Ages grow while a cut-off stands, so it tells ever younger connections as time goes by. It is set so that it is reached
 * when this is over, and taken back then. Envoy reads it each 50 ms (the presets' refresh_interval): what was born within
 * that time after the last one whose turn it is may be told with it, and pays by `leftEarly`.
 */
const REACH_MS = 50;
/** One that went away this little before its turn was told by a cut-off that came a moment early. */
const EARLY_MS = 1_000;
/** Taken back this far: when the agent dies, nobody is told before its successor is there. */
const HOLD_MS = 5_000;
const ADAPT_EVERY_MS = 1_000;
/** Resolution of Envoy's scale, a float32 near 1. */
const FLOAT_STEP = 2 ** -24;

export interface PacerHands {
  /** The old epoch's connections, each as well known as it can be. */
  readonly connections: () => readonly Connection[];
  /** How many there are, where they are not known one by one. */
  readonly open: () => number;
  readonly setPressure: (pressure: number) => void;
  readonly mark: (ids: readonly string[]) => void;
  /** What the new epoch bears; undefined: not to be had. */
  readonly load?: () => Promise<Load | undefined>;
  readonly changed: () => void;
}

export interface PacerOptions {
  readonly policy: DrainPolicy;
  readonly perSecond: number;
  /** No connection younger than this is told, ms. */
  readonly floorAgeMs: number;
  readonly can: Abilities;
  /** max_connection_duration of its connection managers, ms. */
  readonly durationMs: number;
  /** When the epoch began to accept: none of its connections is older. */
  readonly bornAt: number;
  /** Everything opened before this was told by an earlier agent. */
  readonly toldBefore?: number;
  /** Who was told, and when, under an order before this one. */
  readonly told?: ReadonlyMap<string, number>;
  /** What was usual before the drain, of what `hands.load` tells. */
  readonly usual?: Usual;
  readonly hands: PacerHands;
  readonly log: Log;
  readonly now: () => number;
}

/**
 * Tells the connections of one old epoch to leave, at a rate. Connections are chosen, not responses: a busy one's turn
 * comes no sooner than a quiet one's, and so there is no storm in the first moment (envoy-facts, pacing).
 */
export class Pacer {
  readonly told: Map<string, number>;
  mode: PaceMode;
  readonly why: string | undefined;
  #options: PacerOptions;
  #rate: Rate;
  #credit: number;
  #toldBefore: number;
  #at: number;
  /** Turns of a sweep so far, and how many were open when it began. */
  #swept = 0;
  #sweepOpen = 0;
  #heldUntil = 0;
  #done = false;
  #timer: NodeJS.Timeout | undefined;
  #holding: NodeJS.Timeout | undefined;
  #exposed: PromiseWithResolvers<void> | undefined;
  #adaptedAt: number;
  #allToldAt: number | undefined;
  readonly #marked = new Set<string>();
  /** How many were told together, where nobody lists them. */
  #toldUnlisted = 0;
  #waiting: ReadonlyMap<string, number> = new Map();

  constructor(options: PacerOptions) {
    this.#options = options;
    const { mode, why } = paceMode(options.policy, options.perSecond, options.can);
    this.mode = mode;
    this.why = why;
    this.told = new Map(options.told);
    this.#rate = rateAt(options.perSecond, options.usual);
    this.#toldBefore = options.toldBefore ?? Number.NEGATIVE_INFINITY;
    this.#at = options.now();
    this.#adaptedAt = this.#at;
    this.#credit = Math.max(1, options.perSecond / 10);
  }

  start(): void {
    // A cut-off of an order before this one would go on telling by age, whoever is left alone now.
    if (this.mode === 'mark') this.#options.hands.setPressure(0);
    this.#tick();
  }

  /** Nobody more is told: a cut-off that stands is taken back as far as for a successor. */
  stop(): void {
    clearTimeout(this.#timer);
    try {
      if (this.mode === 'age' || this.mode === 'sweep') this.#hold(this.#options.now());
    } catch (error) {
      this.#options.log('warn', 'the cut-off could not be taken back', { error: String(error) });
    }
    this.#closed();
    this.#done = true;
  }

  /** Another share of the fleet's rate, or another policy's. */
  setRate(perSecond: number): void {
    const before = this.#options.perSecond;
    this.#options = { ...this.#options, perSecond };
    // What strain has taken of it stays taken.
    const part = before > 0 ? Math.min(1, this.#rate.perSecond / before) : 1;
    this.#rate = { ...this.#rate, perSecond: perSecond * part };
  }

  /** Turns are taken: a connection without `toldAt` waits for its own. */
  get paced(): boolean {
    return this.#allToldAt === undefined;
  }

  /** The connection with the moment at which its turn came. */
  annotate(connection: Connection): Connection {
    const at = this.told.get(connection.id) ?? this.#allToldAt;
    return at === undefined ? connection : { ...connection, toldAt: at };
  }

  /** One that has gone, as it was told: also when nobody looked between its turn and its end. */
  last(connection: Connection): Connection {
    const toldAt = this.told.get(connection.id);
    if (toldAt === undefined) return connection;
    return { ...connection, toldAt, ...(this.#marked.has(connection.id) && { marked: true }) };
  }

  progress(): PacingProgress {
    const { hands, now } = this.#options;
    const age = now() - this.#toldBefore;
    return {
      ...this.#counts(hands),
      ...(this.mode === 'none' && { none: this.why ?? 'as policy says' }),
      perSecond: this.mode === 'all' ? 0 : Math.round(this.#rate.perSecond * 10) / 10,
      ...(this.#rate.strain !== undefined && { strain: this.#rate.strain }),
      ...(Number.isFinite(age) && this.paced && { cutoffAgeMs: age }),
    };
  }

  #hears(connection: Connection): boolean {
    return canBeTold(this.#options.can.envoy, connection);
  }

  #counts(hands: PacerHands): { readonly told: number; readonly left: number } {
    if (!this.paced) return { told: Math.max(this.told.size, this.#toldUnlisted), left: 0 };
    if (this.mode === 'sweep') {
      const told = Math.min(this.#sweepOpen, Math.floor(this.#swept));
      return { told, left: Math.min(hands.open(), this.#sweepOpen - told) };
    }
    const waits = (one: Connection) =>
      !this.told.has(one.id) && this.#hears(one) && treatmentOf(this.#options.policy, one).nudge;
    return { told: this.told.size, left: hands.connections().filter(waits).length };
  }

  #tick(): void {
    if (this.#done) return;
    const { now, hands } = this.#options;
    const at = now();
    const ms = Math.max(0, at - this.#at);
    this.#credit = creditAfter(this.#credit, this.#rate.perSecond, ms);
    if (this.mode === 'sweep') this.#swept += (this.#rate.perSecond * ms) / 1_000;
    this.#at = at;
    const before = this.told.size;
    try {
      this.#step(at);
    } catch (error) {
      this.#options.log('error', 'a turn of the drain could not be given', { error: String(error) });
    }
    if (this.told.size !== before || this.#allToldAt === at) hands.changed();
    if (this.#done) return;
    if (at - this.#adaptedAt >= ADAPT_EVERY_MS) void this.#adapt(at);
    this.#timer = setTimeout(() => this.#tick(), TICK_MS);
  }

  #step(at: number): void {
    switch (this.mode) {
      case 'none':
        this.#options.hands.setPressure(0);
        this.#done = true;
        return;
      case 'all':
        this.#tellAll(at);
        return;
      case 'age':
        this.#byAge(at);
        return;
      case 'sweep':
        this.#bySweep(at);
        return;
      case 'mark':
        this.#byMark(at);
        return;
    }
  }

  #byAge(at: number): void {
    const { hands, durationMs, floorAgeMs, now, can } = this.#options;
    const open = hands.connections();
    // By an earlier agent, or listed late: the cut-off told them all the same.
    const before = open.filter((one) => one.openedAt <= this.#toldBefore && this.#hears(one));
    this.#tell(idsOf(before), at);
    this.#credit -= this.#leftEarly(open);
    const old = open.filter((one) => at - one.openedAt >= floorAgeMs);
    const next = ageStep(
      old,
      { toldBefore: this.#toldBefore, credit: this.#credit },
      durationMs * FLOAT_STEP,
      can.envoy,
    );
    this.#credit = next.credit;
    this.#tell(next.told, at);
    if (next.done && floorAgeMs === 0) {
      this.#tellAll(at);
      return;
    }
    if (next.told.length > 0) {
      this.#toldBefore = next.toldBefore;
      this.#cutoff(at + REACH_MS - this.#toldBefore);
      this.#expose(now);
    } else if (at + HOLD_MS / 2 > this.#heldUntil) {
      this.#hold(at);
    }
  }

  /**
   * Resolves when no cut-off stands that time alone would lower. Whoever is about to keep this process busy waits for it:
   * a cut-off that is taken back a tenth of a second late has told a tenth of a second's births more.
   */
  async calm(): Promise<void> {
    await this.#exposed?.promise;
  }

  #expose(now: () => number): void {
    this.#heldUntil = 0;
    this.#exposed ??= Promise.withResolvers();
    clearTimeout(this.#holding);
    this.#holding = setTimeout(() => {
      try {
        this.#hold(now());
      } catch (error) {
        // No #heldUntil was set, so the next turn does it.
        this.#options.log('warn', 'the cut-off could not be taken back', { error: String(error) });
      }
    }, REACH_MS);
  }

  /** Takes the cut-off back, so that time alone does not reach it. */
  #hold(at: number): void {
    this.#closed();
    if (this.#done || !Number.isFinite(this.#toldBefore)) return;
    const until = at + HOLD_MS;
    this.#cutoff(until - this.#toldBefore);
    this.#heldUntil = until;
  }

  /** A marked one that stays silent is told once more, by the pressure: its turn was the first time. */
  #tell(ids: readonly string[], at: number): void {
    for (const id of ids) if (!this.told.has(id)) this.told.set(id, at);
  }

  /** Those near the cut-off that were gone before their turn: they were told too, and cost one all the same. */
  #leftEarly(open: readonly Connection[]): number {
    let early = 0;
    const waiting = new Map(open.filter((one) => !this.told.has(one.id)).map((one) => [one.id, one.openedAt]));
    for (const [id, openedAt] of this.#waiting) {
      if (!waiting.has(id) && !this.told.has(id) && openedAt <= this.#toldBefore + EARLY_MS) early += 1;
    }
    this.#waiting = waiting;
    return early;
  }

  #bySweep(at: number): void {
    const { hands, bornAt, floorAgeMs } = this.#options;
    this.#sweepOpen = Math.max(this.#sweepOpen, hands.open());
    const { ageMs, done } = sweepAge(this.#swept, this.#sweepOpen, at - bornAt);
    if (done && floorAgeMs === 0) {
      this.#tellAll(at);
      return;
    }
    this.#toldBefore = at - Math.max(ageMs, floorAgeMs);
    this.#cutoff(at + REACH_MS - this.#toldBefore);
  }

  #byMark(at: number): void {
    const { hands, policy, perSecond, can } = this.#options;
    const known = hands.connections();
    const next = markStep(known, policy, this.#credit, perSecond === 0, can.envoy);
    this.#credit = next.credit;
    if (next.told.length > 0) hands.mark(next.told);
    for (const id of next.told) this.#marked.add(id);
    // Those that an earlier agent marked have had their turn.
    this.#tell(idsOf(known.filter((one) => one.marked === true)), at);
    this.#tell(next.told, at);
    // A mark is heard with the next response only. The silent ones hear the pressure, once it can hit nobody else: policy
    // leaves none alone, or none of those that it could leave alone is open. One that the filter did not list may be one of
    // them (a worker whose report is still to come, a VM that trapped).
    const listed = !leavesSomeAlone(policy) || known.length >= hands.open();
    if (next.done && !next.exempt && listed) this.mode = perSecond === 0 || !can.cutoff ? 'all' : 'age';
  }

  #closed(): void {
    clearTimeout(this.#holding);
    this.#exposed?.resolve();
    this.#exposed = undefined;
  }

  #tellAll(at: number): void {
    this.#closed();
    const { hands, durationMs, can } = this.#options;
    hands.setPressure(pressureForAll(durationMs));
    this.#tell(idsOf(hands.connections().filter((one) => this.#hears(one))), at);
    if (!can.ages) this.#toldUnlisted = Math.max(this.#sweepOpen, hands.open());
    this.#allToldAt = at;
    this.#done = true;
  }

  #cutoff(ageMs: number): void {
    this.#options.hands.setPressure(pressureForCutoff(Math.max(ageMs, FRESH_MS), this.#options.durationMs));
  }

  async #adapt(at: number): Promise<void> {
    const { policy, hands, usual = {} } = this.#options;
    const seconds = (at - this.#adaptedAt) / 1_000;
    this.#adaptedAt = at;
    if (!policy.pacing.adapt || hands.load === undefined || this.mode === 'all') return;
    // What can not be asked shows no strain: a rate that was halved must not stay so for ever.
    const load = (await hands.load().catch(() => undefined)) ?? { seconds };
    // The rate may be another one by now.
    const rate = adaptRate(this.#rate, this.#options.perSecond, usual, load);
    if (rate.strain !== undefined && this.#rate.strain === undefined) {
      this.#options.log('warn', 'the drain slows down', { perSecond: rate.perSecond, why: rate.strain });
    }
    this.#rate = rate;
  }
}

function idsOf(connections: readonly Connection[]): string[] {
  return connections.map((one) => one.id);
}
