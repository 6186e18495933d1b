// The four parts by root_id: service, connection, upgrade, drain (contract/src/node.ts). One VM per thread holds them all.

import * as abi from './abi';
import { same } from './bytes';
import { TopLevel } from './json';
import * as order from './order';
import * as outbox from './outbox';
import * as reporter from './reporter';
import * as table from './table';
import { Connection } from './table';

export const OTHER: u8 = 0;
export const SERVICE: u8 = 1;
export const CONNECTION: u8 = 2;
export const UPGRADE: u8 = 3;
export const DRAIN: u8 = 4;

const names: ArrayBuffer[] = [
  abi.utf8(''),
  abi.utf8('service'),
  abi.utf8('connection'),
  abi.utf8('upgrade'),
  abi.utf8('drain'),
];
const rootIdPath = abi.utf8('plugin_root_id');
const connectionIdPath = abi.utf8('connection_id');
const sourcePath = abi.utf8('source\0address');
const destinationPath = abi.utf8('destination\0address');
const tlsPath = abi.utf8('connection\0tls_version');
const protocolPath = abi.utf8('request\0protocol');
// Filter state of the stream: the upgrade part counts it already, so the drain part behind it must not.
const countedKey = abi.utf8('sluice.counted');
const countedPath = abi.utf8('sluice.counted');
// Filter state of the stream, for the Lua filter in front (contract/src/presets/leave.ts): this connection is to leave.
// Envoy puts `wasm.` before the name.
const leaveKey = abi.utf8('sluice.leave');
const routePath = abi.utf8('xds\0route_name');
const yes = abi.utf8('1');
const tcp = abi.utf8('tcp');
const empty = new ArrayBuffer(0);

class Root {
  listener: ArrayBuffer = empty;
  protocol: u8 = table.PROTOCOL_UNKNOWN;
  constructor(readonly part: u8) {}
}

/** A request that one of the HTTP parts watches. */
class Stream {
  /** null: not begun, or not ours to count. */
  connection: Connection | null = null;
  constructor(readonly upgrade: bool) {}
}

const roots = new Map<u32, Root>();
const streams = new Map<u32, Stream>();
/** Roots of the contexts whose connection has not been announced yet. */
const pending = new Map<u32, Root>();

export function create(context: u32, parent: u32): void {
  if (parent == 0) {
    roots.set(context, new Root(partOf(abi.property(rootIdPath))));
    return;
  }
  if (!roots.has(parent)) return;
  const root = roots.get(parent);
  if (root.part == CONNECTION) pending.set(context, root);
  else if (root.part == UPGRADE || root.part == DRAIN) streams.set(context, new Stream(root.part == UPGRADE));
}

function partOf(name: ArrayBuffer | null): u8 {
  if (name !== null) for (let i: u8 = 1; i < <u8>names.length; i++) if (same(name, names[i])) return i;
  return OTHER;
}

export function configure(context: u32, size: u32): void {
  if (!roots.has(context)) return;
  const root = roots.get(context);
  if (root.part == SERVICE) reporter.start(context);
  else if (root.part == DRAIN) reporter.takeOrder(abi.pluginConfiguration(size));
  else if (root.part == CONNECTION) {
    const json = new TopLevel(abi.pluginConfiguration(size));
    root.listener = json.text_('listener');
    if (same(json.text_('kind'), tcp)) root.protocol = table.PROTOCOL_TCP;
  }
}

export function connected(context: u32): void {
  if (!pending.has(context)) return;
  const root = pending.get(context);
  pending.delete(context);
  const id = abi.propertyU64(connectionIdPath, u64.MAX_VALUE);
  // Not to be found by its streams or by a command: better unseen (and so protected) than wrong.
  if (id == u64.MAX_VALUE) return;
  const peer = abi.property(sourcePath);
  const local = abi.property(destinationPath);
  const connection = new Connection(
    context,
    id,
    abi.now(),
    root.protocol,
    root.listener,
    peer === null ? empty : peer,
    local === null ? empty : local,
  );
  connection.tls = abi.hasProperty(tlsPath);
  table.add(connection);
  outbox.touched(connection);
}

export function disconnected(context: u32, by: u8): void {
  const connection = table.remove(context);
  if (connection !== null) outbox.closed(connection, by);
}

export function requestBegan(context: u32): void {
  if (!streams.has(context)) return;
  const stream = streams.get(context);
  if (stream.connection !== null) return;
  if (stream.upgrade) abi.setProperty(countedKey, yes);
  else if (abi.hasProperty(countedPath)) return;
  const connection = table.find(abi.propertyU64(connectionIdPath, u64.MAX_VALUE));
  if (connection === null) return;
  stream.connection = connection;
  connection.beginStream(stream.upgrade, protocolOf(abi.property(protocolPath)), abi.now());
  // Envoy picks the route before it makes the filter chain: the name is there from the first hook on.
  const route = abi.propertyOr(routePath, connection.route);
  connection.route = route.byteLength == 0 ? table.NO_ROUTE : route;
  outbox.touched(connection);
}

/**
 * A response begins. Nothing is added to the response itself, so that nothing of ours can reach a client on a worker where
 * the Lua filter is not, or not yet, in front of us.
 */
export function responseBegan(context: u32): void {
  if (!streams.has(context)) return;
  const stream = streams.get(context);
  const connection = stream.connection;
  if (connection === null) return;
  // An upgrade is not asked: its response is the beginning of what the connection is for.
  if (connection.marked && order.draining && !stream.upgrade) abi.setProperty(leaveKey, yes);
  streamed(context, 0);
}

/** Envoy's words: HTTP/1.0, HTTP/1.1, HTTP/2, HTTP/3. */
function protocolOf(name: ArrayBuffer | null): u8 {
  if (name === null || name.byteLength < 6) return table.PROTOCOL_UNKNOWN;
  const major = load<u8>(changetype<usize>(name) + 5);
  if (major == 0x31) return table.PROTOCOL_HTTP1;
  if (major == 0x32) return table.PROTOCOL_HTTP2;
  return major == 0x33 ? table.PROTOCOL_HTTP3 : table.PROTOCOL_UNKNOWN;
}

export function streamed(context: u32, bytes: u32): void {
  if (!streams.has(context)) return;
  const connection = streams.get(context).connection;
  if (connection === null) return;
  connection.bytes += <u64>bytes;
  connection.lastActivity = abi.now();
  outbox.touched(connection);
}

/** A context of any kind is gone. */
export function deleted(context: u32): void {
  if (streams.has(context)) {
    const stream = streams.get(context);
    streams.delete(context);
    const connection = stream.connection;
    if (connection === null) return;
    connection.endStream(stream.upgrade, abi.now());
    if (connection.open) outbox.touched(connection);
    return;
  }
  if (roots.has(context)) {
    roots.delete(context);
    return;
  }
  pending.delete(context);
  // Envoy says so before; this is for a connection that ends without an event.
  disconnected(context, table.BY_UNKNOWN);
}

export function isService(context: u32): bool {
  return roots.has(context) && roots.get(context).part == SERVICE;
}
