import type {
  Connection,
  DrainPolicy,
  EndEstimate,
  EndedConnection,
  EndedHow,
  HeldConnection,
  HoldReason,
  LeverName,
} from '@sluice/contract';
import { leverOf, MAX_ENDED, treatmentOf } from '@sluice/contract';

/** What this agent did to connections of the epoch, by id. */
export interface Deeds {
  readonly idleClosed: ReadonlySet<string>;
  readonly cut: ReadonlyMap<string, HeldConnection>;
  /** Version of the Envoy that drains; absent of another proxy. */
  readonly envoy?: string | undefined;
  /** A connection that has gone, as it was told to leave; the last look at it may have been before that. */
  readonly told?: (connection: Connection) => Connection;
  /** What was first said of its end. */
  readonly expected?: (id: string) => EndEstimate | undefined;
}

/**
 * Who of an old epoch's connections ended, how and by which lever. It compares one look with the next, so an end is as
 * late as a look; and it is told only of lists that are complete, so that a gap is not taken for an end.
 */
export class Ledger {
  /** Ends that were not kept one by one. */
  dropped = 0;
  #last = new Map<string, HeldConnection>();
  #kept: number;
  #missedCounted = false;
  readonly #cut = new Set<string>();
  readonly #open: number | undefined;
  readonly #onEnded: (items: readonly EndedConnection[]) => void;

  /**
   * `begun.open`: connections when the drain began. `begun.items`: ends that an earlier agent kept of it. Whoever is neither
   * kept nor in the first list of all has ended with nobody looking, and is counted.
   */
  constructor(
    onEnded: (items: readonly EndedConnection[]) => void,
    begun: { readonly open?: number | undefined; readonly items?: readonly EndedConnection[] } = {},
  ) {
    this.#onEnded = onEnded;
    this.#open = begun.open;
    const { items = [] } = begun;
    this.#kept = items.length;
    this.#noteCut(items);
  }

  /**
   * `held`: every connection that is open now and listed. `all`: no other is open; a filter that was quiet until now may
   * have a list to come.
   */
  look(held: readonly HeldConnection[], deeds: Deeds, now: number, all = true): void {
    const open = new Map(held.map((one) => [one.connection.id, one]));
    const ended: EndedConnection[] = [];
    for (const [id, one] of this.#last) if (!open.has(id)) ended.push(endOf(one, deeds, now));
    this.#last = open;
    this.#tell(ended, all ? this.#missed(open.size + ended.length) : 0);
  }

  /** The epoch has ended with all that was left on it: `cut` was, by policy or override; the rest held nothing. */
  close(deeds: Deeds, now: number, crashed: boolean): void {
    const last = this.#last;
    const rest = [...last.values()].map((one) => {
      const how: EndedHow = crashed ? 'crashed' : deeds.cut.has(one.connection.id) ? 'cut' : 'closed-idle';
      return {
        ...endOf(one, deeds, now),
        how,
        lever: how === 'closed-idle' ? ('idle-close' as const) : ('cut' as const),
      };
    });
    for (const [id, one] of deeds.cut) {
      // Those in no complete list, as the unseen, are named all the same; those that ended in their turn have been.
      if (!last.has(id) && !this.#cut.has(id)) rest.push({ ...endOf(one, deeds, now), how: 'cut', lever: 'cut' });
    }
    this.#last = new Map();
    this.#tell(rest, this.#missed(rest.length));
  }

  #noteCut(ended: readonly EndedConnection[]): void {
    for (const one of ended) if (one.how === 'cut') this.#cut.add(one.connection.id);
  }

  /** Once, with the first list of all: how many are in no list. */
  #missed(known: number): number {
    if (this.#missedCounted || this.#open === undefined) return 0;
    this.#missedCounted = true;
    return Math.max(0, this.#open - this.#kept - this.dropped - known);
  }

  #tell(ended: readonly EndedConnection[], missed: number): void {
    this.#noteCut(ended);
    const room = Math.max(0, MAX_ENDED - this.#kept);
    const kept = ended.slice(0, room);
    this.#kept += kept.length;
    this.dropped += ended.length - kept.length + missed;
    if (ended.length > 0 || missed > 0) this.#onEnded(kept);
  }
}

/** What an earlier agent cut of this drain, as deeds: the reset answers for that too. */
export function cutBefore(items: readonly EndedConnection[]): [string, HeldConnection][] {
  return items
    .filter(({ how }) => how === 'cut')
    .map(({ connection, reason, rule, released }) => [
      connection.id,
      { connection, protected: false, reason, holds: true, rule, ...(released !== undefined && { released }) },
    ]);
}

function endOf(one: HeldConnection, deeds: Deeds, at: number): EndedConnection {
  const { rule } = one;
  const connection = deeds.told?.(one.connection) ?? one.connection;
  const told = one.reason === 'waits-its-turn' && connection.toldAt !== undefined;
  const reason = told ? 'told-to-leave' : one.reason;
  const cut = deeds.cut.get(connection.id);
  // One that was to be closed and is protected again got a request in time, which saved it: it left later.
  const idle = deeds.idleClosed.has(connection.id) && !one.protected;
  const how: EndedHow = cut ? 'cut' : idle ? 'closed-idle' : 'left';
  const released = cut?.released;
  const first = deeds.expected?.(connection.id);
  return {
    connection,
    at,
    how,
    lever: leftBy(connection, reason, how, deeds.envoy),
    reason,
    rule,
    ...(released !== undefined && { released }),
    ...(first && { estimate: { ...first, ...(first.endsAt !== undefined && { lateMs: at - first.endsAt }) } }),
  };
}

const UNTOLD: ReadonlySet<HoldReason> = new Set<HoldReason>(['not-told', 'no-lever', 'waits-its-turn']);

function leftBy(connection: Connection, reason: HoldReason, how: EndedHow, envoy: string | undefined): LeverName {
  if (how === 'cut') return 'cut';
  if (how === 'closed-idle') return 'idle-close';
  if (connection.marked) return 'mark';
  if (connection.protocol === 'upgrade' || connection.protocol === 'tcp' || hasNone(envoy, connection)) return 'wait';
  return UNTOLD.has(reason) ? 'wait' : 'age-pressure';
}

/** By the levers table nothing makes it leave. */
function hasNone(envoy: string | undefined, connection: Connection): boolean {
  return envoy !== undefined && leverOf(envoy, connection).lever === 'wait';
}

/** The class whose life times speak for a connection, and how long it has lasted by that class's clock. */
export function lifeOf(
  connection: Connection,
  policy: DrainPolicy,
  now: number,
  envoy?: string,
): { kind: string; forMs: number; waits: boolean } {
  const { protocol, listener, toldAt, openedAt } = connection;
  const session =
    hasNone(envoy, connection) ||
    protocol === 'upgrade' ||
    protocol === 'tcp' ||
    !treatmentOf(policy, connection).nudge;
  // Sessions end when they end; the others soon after they were told, whatever their age.
  if (session) return { kind: `${protocol} of ${listener}`, forMs: Math.max(0, now - openedAt), waits: false };
  return {
    kind: `told ${protocol} of ${listener}`,
    forMs: toldAt === undefined ? 0 : Math.max(0, now - toldAt),
    waits: toldAt === undefined,
  };
}
