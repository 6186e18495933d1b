/** One controller among several that share a store. */
export interface Replica {
  readonly id: string;
  /** URL of its API and of the agents' links, as agents and the other replicas reach it. */
  readonly api: string;
  /** HOST:PORT of its xDS, as the other replicas reach it. */
  readonly xds: string;
}

/** Who the replicas are. */
export interface Membership {
  readonly self: string;
  /** Those that live, this one among them as long as it takes part; by id. */
  members(): readonly Replica[];
  /** Tells of each change until the signal is aborted. */
  onChange(listener: () => void, signal: AbortSignal): void;
  /** The one that leads, as it says. */
  leader(): Replica | undefined;
  /** This replica leads in that term; undefined: it does not any more. */
  leads(fence: number | undefined): void;
  /** Announces this replica. Resolves when it is announced and the others are known. */
  join(self: Replica, signal: AbortSignal): Promise<void>;
  /** Takes the announcement back: the others need not wait for it to run out. */
  leave(): Promise<void>;
  /** Epoch milliseconds since when nothing is heard of who lives; the last known members stay in force. undefined: all is well. */
  doubtfulSince(): number | undefined;
}

/**
 * When another replica is over, as a pure function. No clock of another machine is read, as in lease.ts: its Lease is over when this
 * replica has seen it unchanged for as long as it says that it lasts. And only for time in which this replica would have seen a
 * change: it sees its own renewals come back by the same watch. While none comes the API server is away, or this replica is cut
 * off from it: nobody can renew or be heard then, and whoever lived is taken to live on.
 */
export interface SeenReplica extends Replica {
  /** Of its Lease as it was seen last; changes with every renewal. */
  readonly resourceVersion: string;
  /** When that was first seen here, by our own steady clock, milliseconds. */
  readonly at: number;
  readonly durationMs: number;
}

/** What this replica sees of the world: the last of its own renewals that came back, and since when they come without a gap. */
export interface Contact {
  readonly since: number;
  readonly last: number;
}

/** A renewal of our own came back. @param gapMs silence that is longer than this was an absence of the API server, or of us */
export function heardSelf(contact: Contact | undefined, now: number, gapMs: number): Contact {
  return contact === undefined || now - contact.last > gapMs ? { since: now, last: now } : { ...contact, last: now };
}

export function isLive({ at, durationMs }: SeenReplica, contact: Contact | undefined): boolean {
  return contact === undefined || contact.last - Math.max(at, contact.since) < durationMs;
}
