import {
  type Connection,
  type DrainPolicy,
  leavesSomeAlone,
  leverOf,
  needsMarks,
  tellsAnybody,
  treatmentOf,
  whyWeakest,
} from '@sluice/contract';

/**
 * How the connections of one old epoch are told to leave. Pure: what is open, who has been told and the clock go in, who
 * is next comes out. `age`: by the age cut-off of the pressure file, oldest first. `sweep`: the same where nobody knows
 * the ages (an Envoy without the filter): the cut-off falls evenly. `mark`: one by one, by the filter. `all`: at once.
 * `none`: nobody, because policy wants a choice that this Envoy can not make, or nothing is known of this Envoy.
 */
export type PaceMode = 'all' | 'age' | 'sweep' | 'mark' | 'none';

export interface Abilities {
  /** The Envoy's version: the levers table says what it can be told at all. */
  readonly envoy: string;
  /** The filter tells each connection and its age. */
  readonly ages: boolean;
  /** The pressure works as an age cut-off: every connection manager has the preset's duration. */
  readonly cutoff: boolean;
  /** The filter marks single connections, and the Lua filter that obeys it is in front. */
  readonly marks: boolean;
}

export interface Chosen {
  readonly mode: PaceMode;
  /** Why it is not what policy asked for. */
  readonly why?: string;
}

export function paceMode(policy: DrainPolicy, perSecond: number, can: Abilities): Chosen {
  if (!tellsAnybody(can.envoy)) return { mode: 'none', why: whyWeakest(can.envoy) };
  if (needsMarks(policy)) {
    if (can.marks) return { mode: 'mark' };
    if (leavesSomeAlone(policy)) {
      return { mode: 'none', why: 'policy leaves some alone, and this Envoy can only tell all: nobody is told' };
    }
    return { ...byAge(perSecond, can), why: 'this Envoy can not choose the idlest: the oldest leave first' };
  }
  if (!policy.http2.goaway) return { mode: 'none' };
  return byAge(perSecond, can);
}

function byAge(perSecond: number, can: Abilities): Chosen {
  if (perSecond === 0) return { mode: 'all' };
  if (can.cutoff) return { mode: can.ages ? 'age' : 'sweep' };
  return { mode: 'all', why: 'a connection manager has a max_connection_duration of its own: no cut-off by age' };
}

/** Sessions hear nothing: telling them costs no turn. */
export function canBeTold(envoy: string, connection: Connection): boolean {
  return leverOf(envoy, connection).lever !== 'wait';
}

/** The turns that are due: they gather at the rate, no more than half a second of them, and debts are paid off first. */
export function creditAfter(credit: number, perSecond: number, ms: number): number {
  return Math.min(credit + (perSecond * ms) / 1_000, Math.max(1, perSecond / 2));
}

export interface AgeStep {
  /** Everything opened before this (epoch ms) has been told. */
  readonly toldBefore: number;
  readonly told: readonly string[];
  readonly credit: number;
  /** None is left that has not been told. */
  readonly done: boolean;
}

/**
 * The next cut-off, as a moment of birth. `stepMs` is the resolution of Envoy's float32: what was born within it is told
 * together, and the turns taken too early are missed later.
 */
export function ageStep(
  connections: readonly Connection[],
  before: { readonly toldBefore: number; readonly credit: number },
  stepMs: number,
  envoy: string,
): AgeStep {
  const waiting = connections
    .filter((one) => canBeTold(envoy, one) && one.openedAt > before.toldBefore)
    .sort((a, b) => a.openedAt - b.openedAt);
  const turns = Math.floor(before.credit);
  if (waiting.length === 0) return { ...before, told: [], done: true };
  if (turns < 1) return { ...before, told: [], done: false };
  const last = waiting[Math.min(turns, waiting.length) - 1] as Connection;
  const toldBefore = last.openedAt + stepMs;
  const told = waiting.filter((one) => one.openedAt <= toldBefore).map((one) => one.id);
  return { toldBefore, told, credit: before.credit - told.length, done: told.length === waiting.length };
}

export interface MarkStep {
  readonly told: readonly string[];
  readonly credit: number;
  /** All that may be told have been. */
  readonly done: boolean;
  /** Some are open that policy leaves alone. */
  readonly exempt: boolean;
}

/**
 * The next ones to mark: the idlest or the oldest among those that policy tells at all. What was before the order nobody
 * saw: one that has asked nothing since is as idle as it is old. A turn is spent when it is marked, not when it hears: a bound
 * on those that have not heard would let a few that never ask keep everybody else from being chosen.
 */
export function markStep(
  connections: readonly Connection[],
  policy: DrainPolicy,
  credit: number,
  unpaced: boolean,
  envoy: string,
): MarkStep {
  let exempt = false;
  const waiting: Connection[] = [];
  for (const one of connections) {
    if (!canBeTold(envoy, one)) continue;
    if (!treatmentOf(policy, one).nudge) exempt = true;
    else if (!one.marked) waiting.push(one);
  }
  const quiet = (one: Connection) => one.lastActivityAt ?? one.openedAt;
  waiting.sort(policy.pacing.order === 'idlest' ? (a, b) => quiet(a) - quiet(b) : (a, b) => a.openedAt - b.openedAt);
  const turns = unpaced ? waiting.length : Math.max(0, Math.floor(credit));
  const told = waiting.slice(0, turns).map((one) => one.id);
  return { told, credit: credit - told.length, done: told.length === waiting.length, exempt };
}

/**
 * The cut-off age of a sweep: from the oldest that there can be to none, as `turns` goes from none to all of the `open`
 * ones that there were when it began. (Those still open get fewer, because they leave as they are told.)
 */
export function sweepAge(
  turns: number,
  open: number,
  oldestMs: number,
): { readonly ageMs: number; readonly done: boolean } {
  if (turns >= open) return { ageMs: 0, done: true };
  return { ageMs: oldestMs * (1 - turns / open), done: false };
}
