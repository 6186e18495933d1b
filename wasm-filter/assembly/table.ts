// The connection table of one VM, that is of one worker thread. Global: it outlives every root context, because an LDS
// update replaces the connection roots and an ECDS update the drain roots while the connections stay.

export const PROTOCOL_UNKNOWN: u8 = 0;
export const PROTOCOL_HTTP1: u8 = 1;
export const PROTOCOL_HTTP2: u8 = 2;
export const PROTOCOL_HTTP3: u8 = 3;
export const PROTOCOL_UPGRADE: u8 = 4;
export const PROTOCOL_TCP: u8 = 5;

export const BY_UNKNOWN: u8 = 0;
export const BY_COMMAND: u8 = 3;

/** In a record: how many requests are in flight is not known. */
export const NOT_KNOWN: u32 = 0xffffffff;

export const NO_ROUTE: ArrayBuffer = new ArrayBuffer(0);

export class Connection {
  open: bool = true;
  /** A request was seen, so `streams` says how many are in flight of those begun since. */
  seen: bool = false;
  streams: u32 = 0;
  upgrades: u32 = 0;
  bytes: u64 = 0;
  lastActivity: u64 = 0;
  tls: bool = false;
  /** The agent told us to close it. */
  commanded: bool = false;
  /** The agent told us that it is to leave with its next response. */
  marked: bool = false;
  /** Name of the route of its newest request, empty = none. */
  route: ArrayBuffer = NO_ROUTE;

  // What the agent has been told; kept by the reporter.
  reported: bool = false;
  queued: bool = false;
  sentProtocol: u8 = 0;
  sentInFlight: u32 = 0;
  /** The object that `route` was when it was told; another object is another name. */
  sentRoute: ArrayBuffer = NO_ROUTE;

  constructor(
    readonly context: u32,
    readonly id: u64,
    readonly openedAt: u64,
    /** What the listener's kind or the last request said. */
    public base: u8,
    readonly listener: ArrayBuffer,
    readonly peer: ArrayBuffer,
    readonly local: ArrayBuffer,
  ) {}

  get protocol(): u8 {
    return this.upgrades > 0 ? PROTOCOL_UPGRADE : this.base;
  }

  get inFlight(): u32 {
    return this.seen ? this.streams : NOT_KNOWN;
  }

  beginStream(upgrade: bool, protocol: u8, at: u64): void {
    this.seen = true;
    this.streams++;
    if (upgrade) this.upgrades++;
    if (protocol != PROTOCOL_UNKNOWN) this.base = protocol;
    this.lastActivity = at;
  }

  endStream(upgrade: bool, at: u64): void {
    requestsEnded++;
    if (this.streams > 0) this.streams--;
    if (upgrade && this.upgrades > 0) this.upgrades--;
    this.lastActivity = at;
  }
}

const byContext = new Map<u32, Connection>();
const byId = new Map<u64, Connection>();

export let openedTotal: u64 = 0;
export let closedTotal: u64 = 0;
/** Requests that were in some connection's `streams` and ended, however. */
export let requestsEnded: u64 = 0;

export function openCount(): u32 {
  return <u32>byContext.size;
}

export function add(connection: Connection): void {
  byContext.set(connection.context, connection);
  byId.set(connection.id, connection);
  openedTotal++;
}

export function find(id: u64): Connection | null {
  return byId.has(id) ? byId.get(id) : null;
}

/** Removes the connection of a network filter's context; null when it is not (or no longer) in the table. */
export function remove(context: u32): Connection | null {
  if (!byContext.has(context)) return null;
  const connection = byContext.get(context);
  byContext.delete(context);
  byId.delete(connection.id);
  connection.open = false;
  closedTotal++;
  return connection;
}

/** None is to leave any more: the order was taken back. */
export function unmarkAll(): void {
  const open = all();
  for (let i = 0; i < open.length; i++) open[i].marked = false;
}

/** A copy of what is open now: closing one while iterating re-enters remove(). */
export function all(): Connection[] {
  return byContext.values();
}
