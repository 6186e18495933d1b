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
import * as outbox from './outbox';
import * as table from './table';

const MS: u64 = 1_000_000;
const STEADY_TICK_MS: u32 = 1_000;
const TRACKING_TICK_MS: u32 = 100;
/** Of a VM that holds nothing and tracks nothing: the main thread's has nothing else to say, ever. */
const IDLE_HEARTBEAT_NS: u64 = 5_000 * MS;
/** Once a second (ticks are never exact); also how long a subscription takes to reach the VM at most. */
const HEARTBEAT_NS: u64 = 900 * MS;
const CALL_TIMEOUT_MS: u32 = 2_000;
/** Envoy always ends a call by its timeout; this is for a host that does not. */
const CALL_LOST_NS: u64 = 10_000 * MS;
const RETRY_FIRST_NS: u64 = 100 * MS;
const RETRY_MAX_NS: u64 = 2_000 * MS;
const MAX_SUBSCRIPTION_MS: u32 = 3_600_000;

const MAX_REPORT_BYTES: i32 = 256 * 1024;
const NO_CALL: u32 = 0xffffffff;

const FLAG_FIRST: u16 = 1;
const FLAG_LAST: u16 = 2;
const FLAG_DRAINING: u16 = 4;
const FLAG_TRACKING: u16 = 8;
const FLAG_MORE: u16 = 16;
const FLAG_MARKS: u16 = 32;

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

let subscribedUntil: u64 = 0;
let call: u32 = NO_CALL;
let calledAt: u64 = 0;
let retryAt: u64 = 0;
let retryDelay: u64 = RETRY_FIRST_NS;
let sentClosed: u64 = 0;
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
  if (!order.take(json, epoch)) return;
  if (!order.draining) table.unmarkAll();
  wake(abi.now());
}

/** Begins or ends tracking as order and subscription say, and sets the tick to fit. */
function wake(now: u64): void {
  const wanted = order.draining || now < subscribedUntil;
  if (wanted == outbox.tracking) return;
  outbox.setTracking(wanted);
  more = false;
  if (service == 0) return;
  abi.setEffectiveContext(service);
  // Off first: Envoy lets a running timer end its old period otherwise, a second instead of 100 ms.
  abi.setTickPeriod(0);
  abi.setTickPeriod(wanted ? TRACKING_TICK_MS : STEADY_TICK_MS);
}

function lost(now: u64): void {
  outbox.startOver();
  more = false;
  retryAt = now + retryDelay;
  retryDelay = min(retryDelay * 2, RETRY_MAX_NS);
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
  if (order.unacknowledged.byteLength > 0 || outbox.urgent(now)) return true;
  const idle = !outbox.tracking && table.openCount() == 0 && sentClosed == table.closedTotal;
  return now >= calledAt + (idle ? IDLE_HEARTBEAT_NS : HEARTBEAT_NS);
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

  let flags: u16 = FLAG_MARKS;
  let records = writeOrder();
  if (order.draining) flags |= FLAG_DRAINING;
  if (outbox.tracking) {
    flags |= FLAG_TRACKING;
    if (outbox.begin()) flags |= FLAG_FIRST;
    records += outbox.write(writer, now);
    more = outbox.full();
    if (more) flags |= FLAG_MORE;
    else if (outbox.endSnapshot()) flags |= FLAG_LAST;
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

function writeOrder(): u32 {
  const json = order.unacknowledged;
  if (json.byteLength == 0) return 0;
  writer.u8(4);
  writer.u32(json.byteLength);
  writer.bytes(json);
  return 1;
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
  if (more) send(now);
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
      if (r.ok) close(id, false);
    } else if (command == 3) {
      const version = r.u64();
      if (r.ok) order.acknowledge(version);
    } else if (command == 4) {
      if (!r.ok) return;
      outbox.startOver();
      more = false;
      order.repeat();
    } else if (command == 5) {
      const id = r.u64();
      if (r.ok) mark(id);
    } else if (command == 6) {
      const id = r.u64();
      if (r.ok) close(id, true);
    } else return;
    if (!r.ok) return;
  }
}

function mark(id: u64): void {
  const connection = table.find(id);
  if (connection !== null) connection.marked = true;
}

/** `busy`: also with requests in flight; otherwise one that came since the agent decided saves the connection. */
function close(id: u64, busy: bool): void {
  const connection = table.find(id);
  if (connection === null || (connection.streams > 0 && !busy)) return;
  if (!abi.setEffectiveContext(connection.context)) return;
  connection.commanded = true;
  abi.closeDownstream();
  abi.setEffectiveContext(service);
}
