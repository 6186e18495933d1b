// Reports to the agent: what is sent when, and what a reply may command. Format: contract/src/report.ts.
//
//   counting  --order or subscribe-->  tracking (snapshot first, then every change)  --both over-->  counting
//
// At most one call is outstanding. Whatever is lost (call failed, not accepted) makes the next report a snapshot, so
// nothing has to be kept for a retry and memory stays bounded by the connections that are open.

import * as abi from './abi';
import { Reader, Writer } from './bytes';
import { decimal } from './json';
import * as order from './order';
import * as table from './table';
import { BY_COMMAND, Connection } from './table';

const MS: u64 = 1_000_000;
const STEADY_TICK_MS: u32 = 1_000;
const TRACKING_TICK_MS: u32 = 100;
/** Of a VM that holds nothing and tracks nothing: the main thread's has nothing else to say, ever. */
const IDLE_HEARTBEAT_NS: u64 = 5_000 * MS;
/** Once a second (ticks are never exact); also how long a subscription takes to reach the VM at most. */
const HEARTBEAT_NS: u64 = 900 * MS;
/** Bytes and last activity alone are not worth a record more often than this. */
const ACTIVITY_NS: u64 = 900 * MS;
const CALL_TIMEOUT_MS: u32 = 2_000;
/** Envoy always ends a call by its timeout; this is for a host that does not. */
const CALL_LOST_NS: u64 = 10_000 * MS;
const RETRY_FIRST_NS: u64 = 100 * MS;
const RETRY_MAX_NS: u64 = 2_000 * MS;
const MAX_SUBSCRIPTION_MS: u32 = 3_600_000;

const MAX_REPORT_BYTES: i32 = 256 * 1024;
/** Largest record but an order: open with three strings of 255 bytes. */
const MAX_RECORD_BYTES: i32 = 1 + 8 + 8 + 2 + 3 * 256 + 4 + 8 + 8;
/** Closed connections not yet reported; beyond that a snapshot is cheaper. */
const MAX_CLOSED: i32 = 16_384;
const NO_CALL: u32 = 0xffffffff;

const FLAG_FIRST: u16 = 1;
const FLAG_LAST: u16 = 2;
const FLAG_DRAINING: u16 = 4;
const FLAG_TRACKING: u16 = 8;
const FLAG_MORE: u16 = 16;

const MAGIC_REPORT: u32 = 0x31524c53; // 'SLR1'
const MAGIC_REPLY: u32 = 0x31434c53; // 'SLC1'

const epochPath = abi.utf8('xds\0node\0metadata\0SLUICE_EPOCH');
const cluster = abi.utf8('sluice_agent');
const statusHeader = abi.utf8(':status');
const callHeaders = abi.headerMap([
  ':method',
  'POST',
  ':path',
  '/v1/report',
  ':authority',
  'sluice',
  'content-type',
  'application/octet-stream',
]);

const writer = new Writer(MAX_REPORT_BYTES);
let service: u32 = 0;
let vm: u64 = 0;
let epoch: u32 = table.NOT_KNOWN;
let seq: u32 = 0;

let tracking: bool = false;
let subscribedUntil: u64 = 0;
let needSnapshot: bool = false;
/** Not null while a snapshot is being sent: what was open when it began, and how far it came. */
let snapshot: Connection[] | null = null;
let snapshotAt: i32 = 0;
let snapshotBegun: bool = false;
/** Connections with something to report, each once (Connection.queued). */
let queue: Connection[] = [];
let closedIds: u64[] = [];
let closedBy: u8[] = [];
let closedAt: u64[] = [];

let call: u32 = NO_CALL;
let calledAt: u64 = 0;
let retryAt: u64 = 0;
let retryDelay: u64 = RETRY_FIRST_NS;
let sentClosed: u64 = 0;
let activitySentAt: u64 = 0;
/** The report under way was full: the next one follows as soon as it is accepted. */
let more: bool = false;

export function start(context: u32): void {
  service = context;
  if (vm == 0) vm = abi.random();
  readEpoch();
  abi.setTickPeriod(STEADY_TICK_MS);
}

function readEpoch(): void {
  if (epoch != table.NOT_KNOWN) return;
  const text = abi.property(epochPath);
  if (text === null) return;
  const value = decimal(text);
  if (value >= 0 && value < <i64>table.NOT_KNOWN) epoch = <u32>value;
}

/** A drain root was configured: called with that root's context in effect. */
export function takeOrder(json: ArrayBuffer): void {
  readEpoch();
  if (order.take(json, epoch)) wake(abi.now());
}

/** Begins or ends tracking as order and subscription say, and sets the tick to fit. */
function wake(now: u64): void {
  const wanted = order.draining || now < subscribedUntil;
  if (wanted == tracking) return;
  tracking = wanted;
  forget();
  needSnapshot = wanted;
  if (service == 0) return;
  abi.setEffectiveContext(service);
  // Off first: Envoy lets a running timer end its old period otherwise, a second instead of 100 ms.
  abi.setTickPeriod(0);
  abi.setTickPeriod(wanted ? TRACKING_TICK_MS : STEADY_TICK_MS);
}

/** Drops everything queued: a snapshot says it all again, or nobody listens. */
function forget(): void {
  for (let i = 0; i < queue.length; i++) queue[i].queued = false;
  queue = [];
  closedIds = [];
  closedBy = [];
  closedAt = [];
  snapshot = null;
  snapshotBegun = false;
  more = false;
}

function lost(now: u64): void {
  forget();
  needSnapshot = tracking;
  retryAt = now + retryDelay;
  retryDelay = min(retryDelay * 2, RETRY_MAX_NS);
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
    forget();
    needSnapshot = true;
    return;
  }
  closedIds.push(connection.id);
  closedBy.push(connection.commanded ? BY_COMMAND : by);
  closedAt.push(abi.now());
}

export function tick(): void {
  const now = abi.now();
  readEpoch();
  wake(now);
  if (call != NO_CALL) {
    if (now < calledAt + CALL_LOST_NS) return;
    call = NO_CALL;
    lost(now);
  }
  if (now >= retryAt && due(now)) send(now);
}

function due(now: u64): bool {
  if (order.unacknowledged.byteLength > 0) return true;
  if (tracking && (needSnapshot || snapshot !== null || closedIds.length > 0 || urgent(now))) return true;
  const idle = !tracking && table.openCount() == 0 && sentClosed == table.closedTotal;
  return now >= calledAt + (idle ? IDLE_HEARTBEAT_NS : HEARTBEAT_NS);
}

/** True when a queued connection has more to say than activity, or activity's turn has come. */
function urgent(now: u64): bool {
  if (queue.length > 0 && now >= activitySentAt + ACTIVITY_NS) return true;
  for (let i = 0; i < queue.length; i++) if (isUrgent(queue[i])) return true;
  return false;
}

function isUrgent(c: Connection): bool {
  return c.open && (!c.reported || c.sentProtocol != c.protocol || c.sentInFlight != c.inFlight);
}

function send(now: u64): void {
  writer.clear();
  writer.u32(MAGIC_REPORT);
  writer.u16(1);
  const flagsAt = writer.size;
  writer.u16(0);
  writer.u32(epoch);
  writer.u32(++seq);
  writer.u64(vm);
  writer.u64(now);
  writer.u64(order.version);
  writer.u32(table.openCount());
  writer.u64(table.openedTotal);
  writer.u64(table.closedTotal);
  writer.u64(table.requestsEnded);
  const countAt = writer.size;
  writer.u32(0);

  let flags: u16 = 0;
  let records = writeOrder();
  if (order.draining) flags |= FLAG_DRAINING;
  if (tracking) {
    flags |= FLAG_TRACKING;
    if (needSnapshot) beginSnapshot();
    if (snapshot !== null && !snapshotBegun) {
      snapshotBegun = true;
      flags |= FLAG_FIRST;
    }
    records += writeSnapshot() + writeClosed() + writeQueue(now);
    more = (snapshot !== null && snapshotAt < snapshot!.length) || closedIds.length > 0 || unreported();
    if (more) flags |= FLAG_MORE;
    else if (snapshot !== null) {
      flags |= FLAG_LAST;
      snapshot = null;
    }
  }
  writer.patch16(flagsAt, flags);
  writer.patch32(countAt, records);

  sentClosed = table.closedTotal;
  calledAt = now;
  abi.setEffectiveContext(service);
  call = abi.httpCall(cluster, callHeaders, writer.start, writer.size, CALL_TIMEOUT_MS);
  writer.clear();
  if (call == NO_CALL) lost(now);
}

function beginSnapshot(): void {
  needSnapshot = false;
  forget();
  const open = table.all();
  for (let i = 0; i < open.length; i++) open[i].reported = false;
  snapshot = open;
  snapshotAt = 0;
}

function writeOrder(): u32 {
  const json = order.unacknowledged;
  if (json.byteLength == 0) return 0;
  writer.u8(4);
  writer.u32(json.byteLength);
  writer.bytes(json);
  return 1;
}

function writeSnapshot(): u32 {
  if (snapshot === null) return 0;
  const open = snapshot!;
  let records: u32 = 0;
  while (snapshotAt < open.length && writer.fits(MAX_RECORD_BYTES)) {
    const c = open[snapshotAt++];
    if (!c.open || c.reported) continue;
    writeOpen(c);
    records++;
  }
  return records;
}

function writeClosed(): u32 {
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
function writeQueue(now: u64): u32 {
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
    if (c.reported) writeUpdate(c);
    else writeOpen(c);
    records++;
  }
  queue.length = kept;
  if (everything && kept == 0) activitySentAt = now;
  return records;
}

/** A connection that the agent does not know yet is still queued: `open` can not match. */
function unreported(): bool {
  for (let i = 0; i < queue.length; i++) if (!queue[i].reported) return true;
  return false;
}

function writeOpen(c: Connection): void {
  writer.u8(1);
  writer.u64(c.id);
  writer.u64(c.openedAt);
  writer.u8(c.protocol);
  writer.u8(c.tls ? 1 : 0);
  writer.str(c.listener);
  writer.str(c.peer);
  writer.str(c.local);
  writeCounters(c);
  c.reported = true;
}

function writeUpdate(c: Connection): void {
  writer.u8(2);
  writer.u64(c.id);
  writer.u8(c.protocol);
  writeCounters(c);
}

function writeCounters(c: Connection): void {
  writer.u32(c.inFlight);
  writer.u64(c.bytes);
  writer.u64(c.lastActivity);
  c.sentProtocol = c.protocol;
  c.sentInFlight = c.inFlight;
}

/** The host's answer to a call: no headers = it failed. */
export function answered(token: u32, headers: u32, bodySize: u32): void {
  if (token != call) return;
  call = NO_CALL;
  const now = abi.now();
  if (headers == 0 || !accepted()) {
    lost(now);
    return;
  }
  retryDelay = RETRY_FIRST_NS;
  if (bodySize > 0) obey(abi.callResponseBody(bodySize), now);
  wake(now);
  // Not for a snapshot that the reply asked for: it waits for the tick, so that no agent can make us spin.
  if (tracking && more) send(now);
}

function accepted(): bool {
  const status = abi.callResponseHeader(statusHeader);
  return status !== null && decimal(status) == 200;
}

/** Commands up to the first that makes no sense; the rest of such a reply is dropped. */
function obey(body: ArrayBuffer, now: u64): void {
  const r = new Reader(body);
  if (r.u32() != MAGIC_REPLY || r.u16() != 1) return;
  const count = r.u16();
  for (let i: u32 = 0; i < count; i++) {
    const command = r.u8();
    if (command == 1) {
      const ms = r.u32();
      if (r.ok) subscribedUntil = now + <u64>min(ms, MAX_SUBSCRIPTION_MS) * MS;
    } else if (command == 2) {
      const id = r.u64();
      if (r.ok) close(id);
    } else if (command == 3) {
      const version = r.u64();
      if (r.ok) order.acknowledge(version);
    } else if (command == 4) {
      if (!r.ok) return;
      needSnapshot = tracking;
      order.repeat();
    } else return;
    if (!r.ok) return;
  }
}

function close(id: u64): void {
  const connection = table.find(id);
  // A request that came since the agent decided: the connection is not idle any more.
  if (connection === null || connection.streams > 0) return;
  if (!abi.setEffectiveContext(connection.context)) return;
  connection.commanded = true;
  abi.closeDownstream();
  abi.setEffectiveContext(service);
}
