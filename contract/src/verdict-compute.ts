import type { Connection } from './connections.ts';
import type { DrainOrder } from './order.ts';
import type { DrainPolicy } from './policy.ts';
import {
  type HeldConnection,
  type HoldReason,
  MAX_HELD,
  type Verdict,
  type Witness,
  type WitnessName,
} from './verdict.ts';

/** All that a verdict on one old epoch stands on. Times are epoch milliseconds. */
export interface VerdictInput {
  readonly now: number;
  readonly policy: DrainPolicy;
  /** The order in force, if any has been applied; its action `stop` makes every grace endless. */
  readonly order?: DrainOrder | undefined;
  readonly drainStartedAt: number;
  /** When connections were told to leave; graces run from here. undefined: not yet, so no grace runs. */
  readonly orderAppliedAt?: number | undefined;
  /** The filter's table of this epoch; or the kernel's list where Envoy runs no filter, see `listedBy`. */
  readonly connections: readonly Connection[];
  /** Who made `connections`. Default: the filter. */
  readonly listedBy?: WitnessName | undefined;
  readonly witnesses: readonly Witness[];
  /** Requests active in Envoy that the filter does not know of (begun before the order). undefined = not known. */
  readonly unknownInFlight?: number | undefined;
  /** A witness that said nothing for longer than this is not heard. */
  readonly staleAfterMs: number;
}

interface Judged {
  readonly protected: boolean;
  readonly reason: HoldReason;
  readonly until?: number;
}

const ORDER: readonly HoldReason[] = [
  'request-in-flight',
  'streams-finishing',
  'upgrade',
  'tcp',
  'may-hold-a-request',
  'unseen',
  'told-to-leave',
  'silent-idle-grace',
];

/**
 * Whether the old epoch may be ended. Safe exactly if a witness that counts sockets (kernel or admin) is heard, all
 * that are heard agree, and no protected connection is left. What the filter does not know is protected.
 */
export function computeVerdict(input: VerdictInput): Verdict {
  const heard = input.witnesses.map((witness) => listen(witness, input.now, input.staleAfterMs));
  const fresh = heard.filter((witness) => witness.open !== undefined);
  const counts = fresh.map((witness) => witness.open as number);
  const filterFresh = fresh.some((witness) => witness.name === lister(input));
  const sockets = fresh.filter((witness) => witness.name !== 'filter');

  const gone = sockets.length > 0 && counts.every((count) => count === 0);
  // An unheard filter's table is old: its rows may have ended, or hold a request by now. Zero sockets overrules it.
  const known = gone && !filterFresh ? [] : input.connections;
  const judged = known.map((connection) => ({ connection, ...judge(connection, input, filterFresh) }));
  const unseen = Math.max(0, Math.max(0, ...counts) - known.length);

  const held: HeldConnection[] = judged.sort(byWeight).slice(0, MAX_HELD);
  for (let n = 0; n < unseen && held.length < MAX_HELD; n += 1) held.push(unseenConnection(input, n));
  held.sort(byWeight);

  const protectedCount = judged.filter((one) => one.protected).length + unseen;
  const disagreement = describeDisagreement(fresh, lister(input), filterFresh ? known.length : undefined);
  const safe = sockets.length > 0 && disagreement === undefined && protectedCount === 0;
  const pastDeadline = input.now >= input.drainStartedAt + input.policy.maxDrainMs;
  const total = known.length + unseen;
  return {
    safe,
    summary: summarize({ safe, total, protectedCount, judged, unseen, sockets: sockets.length, disagreement, gone }),
    at: input.now,
    total,
    protected: protectedCount,
    held,
    witnesses: heard,
    ...(disagreement === undefined ? {} : { disagreement }),
    pastDeadline,
  };
}

/**
 * Ids of the connections that may be closed from our side: silent idle HTTP/1 (or not yet known, which on an HTTP
 * listener after its GOAWAY is HTTP/1) whose grace is over and which can hold no request. Empty while the filter is
 * not heard, because then nobody knows whether they are still silent.
 */
export function closableIdle(input: VerdictInput): string[] {
  const filterFresh = input.witnesses.some(
    (witness) => witness.name === lister(input) && listen(witness, input.now, input.staleAfterMs).open !== undefined,
  );
  if (!filterFresh) return [];
  return input.connections
    .filter((connection) => {
      const one = judge(connection, input, true);
      return !one.protected && one.reason === 'silent-idle-grace';
    })
    .map((connection) => connection.id);
}

/** The next moment at which the verdict, or what may be closed, changes though nothing happens; undefined: never. */
export function nextChangeAt(input: VerdictInput): number | undefined {
  const moments: number[] = [input.drainStartedAt + input.policy.maxDrainMs];
  for (const witness of input.witnesses) {
    if (witness.open !== undefined) moments.push(witness.at + input.staleAfterMs + 1);
  }
  for (const connection of input.connections) {
    const until = graceEnd(connection, input);
    if (until !== undefined) moments.push(until);
  }
  let next: number | undefined;
  for (const at of moments) if (at > input.now && (next === undefined || at < next)) next = at;
  return next;
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

function judge(connection: Connection, input: VerdictInput, filterFresh: boolean): Judged {
  const { policy } = input;
  const busy = (connection.inFlight ?? 0) > 0;
  switch (connection.protocol) {
    case 'upgrade':
      // While the filter is not heard a counted socket may be another one than this row: nothing is given up then.
      return { protected: policy.upgrades.protect || !filterFresh, reason: 'upgrade' };
    case 'tcp':
      return { protected: policy.tcp.protect || !filterFresh, reason: 'tcp' };
    case 'http2':
    case 'http3':
      // Protected until it is gone: a stream begun before the order is not in inFlight, and after GOAWAY Envoy closes
      // an idle one itself within its drain_timeout.
      return {
        protected: true,
        reason: busy || connection.inFlight === undefined ? 'streams-finishing' : 'told-to-leave',
      };
    case 'http1':
    case 'unknown':
      break;
  }
  if (busy) return { protected: true, reason: 'request-in-flight' };
  const until = graceEnd(connection, input);
  if (until === undefined) return { protected: true, reason: 'silent-idle-grace' };
  if (input.now < until) return { protected: true, reason: 'silent-idle-grace', until };
  if (!filterFresh || !holdsNothing(connection, input)) return { protected: true, reason: 'may-hold-a-request', until };
  return { protected: false, reason: 'silent-idle-grace', until };
}

/**
 * HTTP/1 has one request at a time, so one that the drain's filter saw begin and end proves the connection idle. One
 * that was never seen may hold a request begun before the order, unless Envoy counts none that we do not know.
 */
function holdsNothing(connection: Connection, input: VerdictInput): boolean {
  if (input.unknownInFlight === 0) return true;
  return connection.protocol === 'http1' && connection.inFlight === 0 && connection.lastActivityAt !== undefined;
}

function graceEnd(connection: Connection, input: VerdictInput): number | undefined {
  if (connection.protocol !== 'http1' && connection.protocol !== 'unknown') return undefined;
  if (input.orderAppliedAt === undefined || input.order?.action === 'stop') return undefined;
  const since = Math.max(input.orderAppliedAt, connection.lastActivityAt ?? 0);
  return since + input.policy.http1.silentIdleGraceMs;
}

function unseenConnection(input: VerdictInput, n: number): HeldConnection {
  const connection: Connection = {
    epoch: input.connections[0]?.epoch ?? input.order?.epoch ?? -1,
    id: `unseen-${n}`,
    peer: '',
    local: '',
    listener: '',
    protocol: 'unknown',
    openedAt: input.drainStartedAt,
  };
  return { connection, protected: true, reason: 'unseen' };
}

/** Protected ones first, then by how much they weigh, then the oldest. */
function byWeight(a: HeldConnection, b: HeldConnection): number {
  if (a.protected !== b.protected) return a.protected ? -1 : 1;
  const weight = ORDER.indexOf(a.reason) - ORDER.indexOf(b.reason);
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
  judged: readonly Judged[];
  unseen: number;
  sockets: number;
  disagreement: string | undefined;
  gone: boolean;
}): string {
  if (s.safe) {
    return s.total === 0 ? 'safe: no connection is left' : `safe: none of the ${count(s.total)} left is protected`;
  }
  if (s.sockets === 0) return 'wait: neither kernel nor admin can be heard, so nobody counts the sockets';
  if (s.protectedCount === 0) return `wait: the witnesses differ: ${s.disagreement}`;
  const reasons = new Map<HoldReason, number>();
  for (const one of s.judged) if (one.protected) reasons.set(one.reason, (reasons.get(one.reason) ?? 0) + 1);
  if (s.unseen > 0) reasons.set('unseen', s.unseen);
  const parts = ORDER.filter((reason) => reasons.has(reason)).map((reason) => `${reasons.get(reason)} ${reason}`);
  return `wait: ${count(s.protectedCount)} protected (${parts.join(', ')})`;
}

function count(n: number): string {
  return n === 1 ? '1 connection' : `${n} connections`;
}
