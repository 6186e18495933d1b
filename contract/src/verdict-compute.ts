import type { Connection } from './connections.ts';
import { earliestAfter, type Judged, type JudgeInput, judge, limitOf, nextChangeOf } from './judge.ts';
import { DEFAULT_CUT_ORDER } from './policy.ts';
import { DEFAULT_RULE } from './treatment.ts';
import {
  type HeldConnection,
  type HoldReason,
  MAX_HELD,
  type Verdict,
  type Witness,
  type WitnessName,
} from './verdict.ts';

/** All that a verdict on one old epoch stands on. Times are epoch milliseconds. */
export interface VerdictInput extends JudgeInput {
  /** The filter's table of this epoch; or the kernel's list where Envoy runs no filter, see `listedBy`. */
  readonly connections: readonly Connection[];
  /** Who made `connections`. Default: the filter. */
  readonly listedBy?: WitnessName | undefined;
  readonly witnesses: readonly Witness[];
  /** It listens still: by the next look it may have a connection more. */
  readonly accepts?: boolean | undefined;
  /** A witness that said nothing for longer than this is not heard. */
  readonly staleAfterMs: number;
}

const REASONS: readonly HoldReason[] = [
  'request-in-flight',
  'streams-finishing',
  'upgrade',
  'tcp',
  'may-hold-a-request',
  'unseen',
  'waits-its-turn',
  'not-told',
  'no-lever',
  'told-to-leave',
  'silent-idle-grace',
];

const ORDER = new Map(REASONS.map((reason, n) => [reason, n]));

function weightOf(reason: HoldReason): number {
  return ORDER.get(reason) as number;
}

/** What an input comes to, one connection at a time. */
interface Hearing {
  readonly heard: readonly Witness[];
  readonly judged: readonly Judged[];
  /** Sockets that a witness counts and no row stands for. */
  readonly unseen: number;
  readonly sockets: number;
  readonly disagreement: string | undefined;
}

/** One input is asked several questions: its connections, thousands maybe, are judged once. */
const hearings = new WeakMap<VerdictInput, Hearing>();

function hear(input: VerdictInput): Hearing {
  const known = hearings.get(input);
  if (known !== undefined) return known;
  const hearing = hearAnew(input);
  hearings.set(input, hearing);
  return hearing;
}

function hearAnew(input: VerdictInput): Hearing {
  const heard = input.witnesses.map((witness) => listen(witness, input.now, input.staleAfterMs));
  const fresh = heard.filter((witness) => witness.open !== undefined);
  const counts = fresh.map((witness) => witness.open as number);
  const listed = fresh.some((witness) => witness.name === lister(input));
  const sockets = fresh.filter((witness) => witness.name !== 'filter').length;
  const gone = sockets > 0 && counts.every((count) => count === 0);
  // An unheard filter's table is old: its rows may have ended, or hold a request by now. Zero sockets overrules it.
  const known = gone && !listed ? [] : input.connections;
  return {
    heard,
    judged: known.map((connection) => judge(connection, input, listed)).sort(byWeight),
    unseen: Math.max(0, Math.max(0, ...counts) - known.length),
    sockets,
    disagreement: describeDisagreement(fresh, lister(input), listed ? known.length : undefined),
  };
}

/**
 * Whether the old epoch may be ended. Safe exactly if a witness that counts sockets (kernel or admin) is heard, all
 * that are heard agree, it accepts no more, and no protected connection is left; what the filter does not know is
 * protected. Past a limit that policy answers with a reset, only what a rule says to wait for still counts.
 */
export function computeVerdict(input: VerdictInput): Verdict {
  const { heard, judged, unseen, sockets, disagreement } = hear(input);
  const limit = limitOf(input);
  const forced = limit !== undefined && resetsAll(input);
  const unseenProtected = forced ? 0 : unseen;
  const protectedCount = judged.filter((one) => one.protected).length + unseenProtected;
  const agreed = sockets > 0 && disagreement === undefined;
  const accepts = input.accepts === true;
  const safe = protectedCount === 0 && ((agreed && !accepts) || forced);
  const held = judged.slice(0, MAX_HELD).map(heldOf);
  for (let n = 0; n < unseen && held.length < MAX_HELD; n += 1) held.push(unseenConnection(input, n, !forced));
  held.sort(byWeight);
  const total = judged.length + unseen;
  const holding = judged.filter((one) => one.holds).length + unseen;
  return {
    safe,
    summary: summarize({
      safe,
      total,
      protectedCount,
      holding,
      judged,
      unseenProtected,
      sockets,
      accepts,
      disagreement,
    }),
    at: input.now,
    total,
    protected: protectedCount,
    held,
    holding,
    witnesses: heard,
    ...(disagreement === undefined ? {} : { disagreement }),
    pastDeadline: limit !== undefined,
    ...(limit === undefined ? {} : { limit }),
    ...(input.overBudget === true ? { overBudget: true } : {}),
  };
}

/** Past the limit nothing is waited for, the unseen included: no rule says otherwise for anybody. */
function resetsAll({ policy }: VerdictInput): boolean {
  return policy.atDeadline === 'reset' && policy.rules.every((rule) => (rule.atDeadline ?? 'reset') === 'reset');
}

/** Every connection of the old epoch, judged; the unseen are not among them. Not bounded. */
export function allHeld(input: VerdictInput): HeldConnection[] {
  return hear(input).judged.map(heldOf);
}

/**
 * Every connection that a reset now would cut, first those that policy gives up first: by `cutOrder`, then those that
 * hold least. Not bounded.
 */
export function wouldBeCut(input: VerdictInput): HeldConnection[] {
  const { judged, unseen } = hear(input);
  const cut = judged.filter((one) => one.holds).map((one) => ({ order: one.treatment.cutOrder, held: heldOf(one) }));
  for (let n = 0; n < unseen; n += 1) cut.push({ order: DEFAULT_CUT_ORDER, held: unseenConnection(input, n, true) });
  return cut
    .sort((a, b) => a.order - b.order || weightOf(b.held.reason) - weightOf(a.held.reason))
    .map((one) => one.held);
}

/**
 * Ids of the connections that may be closed from our side: silent idle HTTP/1 (or not yet known, which on an HTTP
 * listener after its GOAWAY is HTTP/1) whose grace is over and which can hold no request. Empty while the filter is
 * not heard, because then nobody knows whether they are still silent.
 */
export function closableIdle(input: VerdictInput): string[] {
  if (!isListed(input)) return [];
  return hear(input)
    .judged.filter((one) => !one.protected && one.released === undefined && one.reason === 'silent-idle-grace')
    .map((one) => one.connection.id);
}

/** The next moment at which the verdict, or what may be closed, changes though nothing happens; undefined: never. */
export function nextChangeAt(input: VerdictInput): number | undefined {
  const { maxDrainMs } = input.policy;
  const moments: (number | undefined)[] = [maxDrainMs > 0 ? input.drainStartedAt + maxDrainMs : undefined];
  for (const witness of input.witnesses) {
    if (witness.open !== undefined) moments.push(witness.at + input.staleAfterMs + 1);
  }
  for (const one of hear(input).judged) moments.push(nextChangeOf(one, input));
  return earliestAfter(input.now, moments);
}

function isListed(input: VerdictInput): boolean {
  return input.witnesses.some(
    (witness) => witness.name === lister(input) && listen(witness, input.now, input.staleAfterMs).open !== undefined,
  );
}

function lister(input: VerdictInput): WitnessName {
  return input.listedBy ?? 'filter';
}

/** The witness as it counts now: one that is too old loses its number and says why. */
function listen(witness: Witness, now: number, staleAfterMs: number): Witness {
  if (witness.open === undefined || now - witness.at <= staleAfterMs) return witness;
  const { open: _, ...rest } = witness;
  return { ...rest, why: witness.why ?? `not heard for ${now - witness.at} ms` };
}

function heldOf(one: Judged): HeldConnection {
  const { treatment, ...rest } = one;
  return { ...rest, rule: treatment.rule };
}

function unseenConnection(input: VerdictInput, n: number, isProtected: boolean): HeldConnection {
  const connection: Connection = {
    epoch: input.connections[0]?.epoch ?? input.order?.epoch ?? -1,
    id: `unseen-${n}`,
    peer: '',
    local: '',
    listener: '',
    protocol: 'unknown',
    openedAt: input.drainStartedAt,
  };
  return { connection, protected: isProtected, reason: 'unseen', holds: true, rule: DEFAULT_RULE };
}

interface Weighed {
  readonly protected: boolean;
  readonly reason: HoldReason;
  readonly connection: Connection;
}

/** Protected ones first, then by how much they weigh, then the oldest. */
function byWeight(a: Weighed, b: Weighed): number {
  if (a.protected !== b.protected) return a.protected ? -1 : 1;
  const weight = weightOf(a.reason) - weightOf(b.reason);
  return weight !== 0 ? weight : a.connection.openedAt - b.connection.openedAt;
}

function describeDisagreement(
  fresh: readonly Witness[],
  by: WitnessName,
  tableSize: number | undefined,
): string | undefined {
  const said = fresh.map((witness) => `${witness.name} counts ${witness.open}`);
  const counts = new Set(fresh.map((witness) => witness.open));
  if (tableSize !== undefined && !counts.has(tableSize)) {
    counts.add(tableSize);
    said.push(`the table holds ${tableSize}`);
  }
  const filter = fresh.find((witness) => witness.name === by);
  if (tableSize !== undefined && filter?.open !== tableSize) counts.add(-1);
  return counts.size > 1 ? said.join(', ') : undefined;
}

function summarize(s: {
  safe: boolean;
  total: number;
  protectedCount: number;
  holding: number;
  judged: readonly Judged[];
  unseenProtected: number;
  sockets: number;
  accepts: boolean;
  disagreement: string | undefined;
}): string {
  if (s.safe) {
    if (s.total === 0) return 'safe: no connection is left';
    const cut = s.holding === 0 ? '' : `; ${s.holding} that hold a request or a session will be cut, as policy says`;
    return `safe: none of the ${count(s.total)} left is protected${cut}`;
  }
  if (s.sockets === 0) return 'wait: neither kernel nor admin can be heard, so nobody counts the sockets';
  if (s.protectedCount === 0 && s.disagreement === undefined) return 'wait: it accepts connections still';
  if (s.protectedCount === 0) return `wait: the witnesses differ: ${s.disagreement}`;
  const reasons = new Map<HoldReason, number>();
  for (const one of s.judged) if (one.protected) reasons.set(one.reason, (reasons.get(one.reason) ?? 0) + 1);
  if (s.unseenProtected > 0) reasons.set('unseen', s.unseenProtected);
  const parts = REASONS.filter((reason) => reasons.has(reason)).map((reason) => `${reasons.get(reason)} ${reason}`);
  return `wait: ${count(s.protectedCount)} protected (${parts.join(', ')})`;
}

function count(n: number): string {
  return n === 1 ? '1 connection' : `${n} connections`;
}
