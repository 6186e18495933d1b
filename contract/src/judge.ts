import type { Connection } from './connections.ts';
import { type LeverName, leverOf } from './levers.ts';
import type { DrainOrder } from './order.ts';
import type { DrainPolicy } from './policy.ts';
import { type Treatment, treatmentOf } from './treatment.ts';
import type { DrainLimit, HoldReason, ReleasedBy } from './verdict.ts';

/**
 * Nothing younger is told to leave, whoever's turn it is. A connection on which nothing has come yet, one in its TLS
 * handshake too, has no codec that could say a word: Envoy closes it with FIN, and its first request is lost
 * (conn_manager_impl.cc, onConnectionDurationTimeout). An old epoch accepts no more, so all are older two seconds later.
 */
export const FRESH_MS = 2_000;

/** What one connection is judged by. Times are epoch milliseconds. */
export interface JudgeInput {
  readonly now: number;
  readonly policy: DrainPolicy;
  /** Version of the Envoy that holds it: the levers table says what makes it leave. undefined: it is no Envoy. */
  readonly envoy?: string | undefined;
  /** The order in force, if any has been applied; its action `stop` makes every grace endless. */
  readonly order?: DrainOrder | undefined;
  readonly drainStartedAt: number;
  /** When connections were told to leave; graces run from here. undefined: not yet, so no grace runs. */
  readonly orderAppliedAt?: number | undefined;
  /** They are told one after the other: one without `toldAt` has not been told. */
  readonly paced?: boolean | undefined;
  /** Requests active in Envoy that the filter does not know of (begun before the order). undefined = not known. */
  readonly unknownInFlight?: number | undefined;
  /** This epoch is the one to give up, because the lingering ones hold more than policy's budget. */
  readonly overBudget?: boolean | undefined;
}

export interface Judged {
  readonly connection: Connection;
  readonly treatment: Treatment;
  readonly protected: boolean;
  readonly reason: HoldReason;
  readonly holds: boolean;
  readonly released?: ReleasedBy;
  readonly until?: number;
}

/** The limit that the drain is over, if it is. */
export function limitOf(input: JudgeInput): DrainLimit | undefined {
  const { maxDrainMs } = input.policy;
  if (maxDrainMs > 0 && input.now >= input.drainStartedAt + maxDrainMs) return 'time';
  return input.overBudget === true ? 'memory' : undefined;
}

/** `listed`: who made the row is heard now; without that it may be another connection by now, or hold a request. */
export function judge(connection: Connection, input: JudgeInput, listed: boolean): Judged {
  const treatment = treatmentOf(input.policy, connection);
  const kept = waitedFor(connection, treatment, input, listed);
  const released = kept.waits ? releasedBy(treatment, input, listed) : undefined;
  const until = kept.waits && released === undefined ? protectionEnd(kept.until, treatment, input) : kept.until;
  return {
    connection,
    treatment,
    protected: kept.waits && released === undefined,
    reason: kept.reason,
    holds: HOLDING.has(kept.reason) || !listed || !holdsNothing(connection, input),
    ...(released !== undefined && { released }),
    ...(until !== undefined && { until }),
  };
}

/** When a protected one is not waited for any more, whatever it does: the grace, its rule's time, the limit. */
function protectionEnd(
  graceEnds: number | undefined,
  { protectMs, atDeadline }: Treatment,
  { now, drainStartedAt, policy }: JudgeInput,
): number | undefined {
  const limited = policy.maxDrainMs > 0 && atDeadline === 'reset';
  const after = (ms: number | undefined) => (ms === undefined ? undefined : drainStartedAt + ms);
  return earliestAfter(now, [graceEnds, after(protectMs), limited ? after(policy.maxDrainMs) : undefined]);
}

const HOLDING: ReadonlySet<HoldReason> = new Set<HoldReason>([
  'streams-finishing',
  'request-in-flight',
  'may-hold-a-request',
  'upgrade',
  'tcp',
  'unseen',
]);

interface Kept {
  readonly waits: boolean;
  readonly reason: HoldReason;
  readonly until?: number;
}

function waitedFor(connection: Connection, treatment: Treatment, input: JudgeInput, listed: boolean): Kept {
  const { protocol, inFlight } = connection;
  const busy = (inFlight ?? 0) > 0;
  switch (protocol) {
    case 'upgrade':
    case 'tcp':
      return { waits: true, reason: protocol };
    case 'http2':
    case 'http3':
      // Protected until it is gone: a stream begun before the order is not in inFlight, and after GOAWAY Envoy closes
      // an idle one itself within its drain_timeout.
      return {
        waits: true,
        reason: busy || inFlight === undefined ? 'streams-finishing' : toldReason(connection, treatment, input),
      };
    case 'http1':
    case 'unknown':
      break;
  }
  // A request ends for Envoy when its answer is written; it has ended when the client has the answer.
  if (busy || connection.answering) return { waits: true, reason: 'request-in-flight' };
  const until = graceEnd(connection, treatment, input);
  if (until === undefined) {
    const reason = toldReason(connection, treatment, input);
    return { waits: true, reason: reason === 'told-to-leave' ? 'silent-idle-grace' : reason };
  }
  if (input.now < until) return { waits: true, reason: 'silent-idle-grace', until };
  if (!listed || !holdsNothing(connection, input)) return { waits: true, reason: 'may-hold-a-request', until };
  return { waits: false, reason: 'silent-idle-grace', until };
}

function releasedBy(treatment: Treatment, input: JudgeInput, listed: boolean): ReleasedBy | undefined {
  const limit = limitOf(input);
  if (limit !== undefined && treatment.atDeadline === 'reset') return limit === 'time' ? 'deadline' : 'memory';
  if (!listed) return undefined;
  if (!treatment.protect) return 'policy';
  const { protectMs } = treatment;
  return protectMs !== undefined && input.now >= input.drainStartedAt + protectMs ? 'protection-over' : undefined;
}

function toldReason(connection: Connection, treatment: Treatment, input: JudgeInput): HoldReason {
  if (!treatment.nudge) return 'not-told';
  if (leverOn(connection, input) === 'wait') return 'no-lever';
  return input.paced && connection.toldAt === undefined ? 'waits-its-turn' : 'told-to-leave';
}

function leverOn(connection: Connection, { envoy }: JudgeInput): LeverName | undefined {
  return envoy === undefined ? undefined : leverOf(envoy, connection).lever;
}

/**
 * HTTP/1 has one request at a time, so one that the drain's filter saw begin and end proves the connection idle. One
 * that was never seen may hold a request begun before the order, unless Envoy counts none that we do not know.
 */
function holdsNothing(connection: Connection, input: JudgeInput): boolean {
  if (input.unknownInFlight === 0) return true;
  return connection.protocol === 'http1' && connection.inFlight === 0 && connection.lastActivityAt !== undefined;
}

/** End of a silent HTTP/1 connection's grace, which runs from when it was told; undefined: none runs. */
function graceEnd(connection: Connection, treatment: Treatment, input: JudgeInput): number | undefined {
  if (!treatment.nudge || input.orderAppliedAt === undefined || input.order?.action === 'stop') return undefined;
  if ((leverOn(connection, input) ?? 'idle-close') !== 'idle-close') return undefined;
  if (input.paced && connection.toldAt === undefined) return undefined;
  const toldAt = Math.max(connection.toldAt ?? 0, connection.openedAt + FRESH_MS);
  const since = Math.max(input.orderAppliedAt, toldAt, connection.lastActivityAt ?? 0);
  return since + treatment.silentIdleGraceMs;
}

/** The next moment at which the judgement of this connection changes though nothing happens. */
export function nextChangeOf(one: Judged, input: JudgeInput): number | undefined {
  const { protectMs } = one.treatment;
  const moments = [one.until, protectMs === undefined ? undefined : input.drainStartedAt + protectMs];
  return earliestAfter(input.now, moments);
}

export function earliestAfter(now: number, moments: readonly (number | undefined)[]): number | undefined {
  let next: number | undefined;
  for (const at of moments) if (at !== undefined && at > now && (next === undefined || at < next)) next = at;
  return next;
}
