// What the agent has not been told yet: a snapshot under way, changed connections, ended ones; and the records that tell it.
// Nothing is queued while nobody listens. Format: contract/src/report.ts.

import * as abi from './abi';
import { Writer } from './bytes';
import * as table from './table';
import { BY_COMMAND, Connection, NO_ROUTE } from './table';

/** Bytes and last activity alone are not worth a record more often than once a second (ticks are never exact). */
const ACTIVITY_NS: u64 = 900_000_000;
/** The most that is written of one connection: open with three strings of 255 bytes, and its route. */
const MAX_RECORD_BYTES: i32 = 1 + 8 + 8 + 2 + 3 * 256 + 4 + 8 + 8 + (1 + 8 + 256);
/** Ended connections not yet reported; beyond that a snapshot is cheaper. */
const MAX_CLOSED: i32 = 16_384;

/** The agent listens: changes are queued. */
export let tracking: bool = false;
/** The next report begins with a snapshot. */
export let needSnapshot: bool = false;

/** Not null while a snapshot is being sent: what was open when it began, and how far it came. */
let snapshot: Connection[] | null = null;
let snapshotAt: i32 = 0;
/** Connections with something to report, each once (Connection.queued). */
let queue: Connection[] = [];
let closedIds: u64[] = [];
let closedBy: u8[] = [];
let closedAt: u64[] = [];
let activitySentAt: u64 = 0;

/** Begins with a snapshot, or ends. */
export function setTracking(on: bool): void {
  tracking = on;
  startOver();
}

/** What was told is lost, or never was: everything is told again, if anybody listens. */
export function startOver(): void {
  forget();
  needSnapshot = tracking;
}

function forget(): void {
  for (let i = 0; i < queue.length; i++) queue[i].queued = false;
  queue = [];
  closedIds = [];
  closedBy = [];
  closedAt = [];
  snapshot = null;
}

/** Something of this connection changed. */
export function touched(connection: Connection): void {
  if (!tracking || connection.queued) return;
  connection.queued = true;
  queue.push(connection);
}

/** `by`: as the host said; our own command is recognised here. */
export function closed(connection: Connection, by: u8): void {
  // What the agent never heard of needs no end; the counters have it.
  if (!tracking || !connection.reported) return;
  if (closedIds.length >= MAX_CLOSED) {
    startOver();
    return;
  }
  closedIds.push(connection.id);
  closedBy.push(connection.commanded ? BY_COMMAND : by);
  closedAt.push(abi.now());
}

/** True when there is something that does not wait for the next heartbeat. */
export function urgent(now: u64): bool {
  if (!tracking) return false;
  if (needSnapshot || snapshot !== null || closedIds.length > 0) return true;
  if (queue.length > 0 && now >= activitySentAt + ACTIVITY_NS) return true;
  for (let i = 0; i < queue.length; i++) if (isUrgent(queue[i])) return true;
  return false;
}

function isUrgent(c: Connection): bool {
  return c.open && (!c.reported || c.sentProtocol != c.protocol || c.sentInFlight != c.inFlight);
}

/** Begins the snapshot if one is due. Returns true for the first report of one. */
export function begin(): bool {
  if (!needSnapshot) return false;
  needSnapshot = false;
  forget();
  const open = table.all();
  for (let i = 0; i < open.length; i++) open[i].reported = false;
  snapshot = open;
  snapshotAt = 0;
  return true;
}

/** Writes as many records as fit; how many. */
export function write(writer: Writer, now: u64): u32 {
  return writeSnapshot(writer) + writeClosed(writer) + writeQueue(writer, now);
}

/** True when the report was full, so that what the agent knows and `open` can not match. */
export function full(): bool {
  if (snapshot !== null && snapshotAt < snapshot!.length) return true;
  if (closedIds.length > 0) return true;
  for (let i = 0; i < queue.length; i++) if (!queue[i].reported) return true;
  return false;
}

/** After the last report of a snapshot: true once. */
export function endSnapshot(): bool {
  if (snapshot === null) return false;
  snapshot = null;
  return true;
}

function writeSnapshot(writer: Writer): u32 {
  if (snapshot === null) return 0;
  const open = snapshot!;
  let records: u32 = 0;
  while (snapshotAt < open.length && writer.fits(MAX_RECORD_BYTES)) {
    const c = open[snapshotAt++];
    if (!c.open || c.reported) continue;
    writeOpen(writer, c);
    records += 1 + writeRoute(writer, c);
  }
  return records;
}

function writeClosed(writer: Writer): u32 {
  let records: u32 = 0;
  while (closedIds.length > 0 && writer.fits(MAX_RECORD_BYTES)) {
    writer.u8(3);
    writer.u64(closedIds.pop());
    writer.u8(closedBy.pop());
    writer.u64(closedAt.pop());
    records++;
  }
  return records;
}

/** Writes what is urgent, and the rest once a second; what is neither stays queued. */
function writeQueue(writer: Writer, now: u64): u32 {
  const everything = now >= activitySentAt + ACTIVITY_NS;
  let records: u32 = 0;
  let kept = 0;
  for (let i = 0; i < queue.length; i++) {
    const c = queue[i];
    if (!c.open) {
      c.queued = false;
      continue;
    }
    if ((!everything && !isUrgent(c)) || !writer.fits(MAX_RECORD_BYTES)) {
      queue[kept++] = c;
      continue;
    }
    c.queued = false;
    if (c.reported) writeUpdate(writer, c);
    else writeOpen(writer, c);
    records += 1 + writeRoute(writer, c);
  }
  queue.length = kept;
  if (everything && kept == 0) activitySentAt = now;
  return records;
}

function writeOpen(writer: Writer, c: Connection): void {
  writer.u8(1);
  writer.u64(c.id);
  writer.u64(c.openedAt);
  writer.u8(c.protocol);
  writer.u8(c.tls ? 1 : 0);
  writer.str(c.listener);
  writer.str(c.peer);
  writer.str(c.local);
  writeCounters(writer, c);
  c.reported = true;
  // Whoever hears of it anew has not heard of its route.
  c.sentRoute = NO_ROUTE;
}

/** The route if it is another than the one told; how many records. */
function writeRoute(writer: Writer, c: Connection): u32 {
  if (c.sentRoute === c.route) return 0;
  writer.u8(5);
  writer.u64(c.id);
  writer.str(c.route);
  c.sentRoute = c.route;
  return 1;
}

function writeUpdate(writer: Writer, c: Connection): void {
  writer.u8(2);
  writer.u64(c.id);
  writer.u8(c.protocol);
  writeCounters(writer, c);
}

function writeCounters(writer: Writer, c: Connection): void {
  writer.u32(c.inFlight);
  writer.u64(c.bytes);
  writer.u64(c.lastActivity);
  c.sentProtocol = c.protocol;
  c.sentInFlight = c.inFlight;
}
