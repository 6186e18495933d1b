// Thin wrappers around the host functions: bytes in, bytes out.

import * as host from './host';

const BUFFER_HTTP_CALL_RESPONSE_BODY: i32 = 4;
const BUFFER_PLUGIN_CONFIGURATION: i32 = 7;
const MAP_HTTP_CALL_RESPONSE_HEADERS: i32 = 6;
const STREAM_DOWNSTREAM: i32 = 2;
const LOG_WARN: i32 = 3;

/** Where the host puts its results: two words. */
const out: usize = memory.data(16);
const out2: usize = out + 8;

/** The host asks for memory by this export (malloc) for everything that it hands over; take() copies and frees it. */
function take(): ArrayBuffer {
  const from = <usize>load<u32>(out);
  const size = <i32>load<u32>(out2);
  const bytes = new ArrayBuffer(size);
  if (from != 0) {
    memory.copy(changetype<usize>(bytes), from, size);
    heap.free(from);
  }
  return bytes;
}

const empty = new ArrayBuffer(0);

function reset(): void {
  store<u64>(out, 0);
  store<u64>(out2, 0);
}

export function utf8(text: string): ArrayBuffer {
  return String.UTF8.encode(text);
}

export function warn(text: string): void {
  const bytes = utf8(text);
  host.log(LOG_WARN, changetype<usize>(bytes), bytes.byteLength);
}

/** A property's bytes, or null when the context does not have it. `path`: its parts with NUL between them. */
export function property(path: ArrayBuffer): ArrayBuffer | null {
  reset();
  return host.getProperty(changetype<usize>(path), path.byteLength, out, out2) == 0 ? take() : null;
}

/**
 * A property's bytes, the very object `known` when they are the same: what hardly ever changes is not copied with each
 * request. Empty when the context does not have it.
 */
export function propertyOr(path: ArrayBuffer, known: ArrayBuffer): ArrayBuffer {
  reset();
  if (host.getProperty(changetype<usize>(path), path.byteLength, out, out2) != 0) return empty;
  const from = <usize>load<u32>(out);
  const size = <i32>load<u32>(out2);
  if (size == known.byteLength && (from == 0 || memory.compare(changetype<usize>(known), from, size) == 0)) {
    if (from != 0) heap.free(from);
    return known;
  }
  return take();
}

/** A property of a u64 as the bytes' value; `missing` when the context does not have it. Copies nothing. */
export function propertyU64(path: ArrayBuffer, missing: u64): u64 {
  reset();
  if (host.getProperty(changetype<usize>(path), path.byteLength, out, out2) != 0) return missing;
  const from = <usize>load<u32>(out);
  if (from == 0) return missing;
  const value = load<u32>(out2) == 8 ? load<u64>(from) : missing;
  heap.free(from);
  return value;
}

/** True when the context has this property and it is not empty. */
export function hasProperty(path: ArrayBuffer): bool {
  reset();
  if (host.getProperty(changetype<usize>(path), path.byteLength, out, out2) != 0) return false;
  const from = <usize>load<u32>(out);
  const size = load<u32>(out2);
  if (from != 0) heap.free(from);
  return size > 0;
}

export function setProperty(path: ArrayBuffer, value: ArrayBuffer): void {
  host.setProperty(changetype<usize>(path), path.byteLength, changetype<usize>(value), value.byteLength);
}

function buffer(kind: i32, size: u32): ArrayBuffer {
  reset();
  return size > 0 && host.getBuffer(kind, 0, size, out, out2) == 0 ? take() : new ArrayBuffer(0);
}

export function pluginConfiguration(size: u32): ArrayBuffer {
  return buffer(BUFFER_PLUGIN_CONFIGURATION, size);
}

export function callResponseBody(size: u32): ArrayBuffer {
  return buffer(BUFFER_HTTP_CALL_RESPONSE_BODY, size);
}

/** A header of the response to our own call, or null. */
export function callResponseHeader(name: ArrayBuffer): ArrayBuffer | null {
  reset();
  const found = host.getHeader(MAP_HTTP_CALL_RESPONSE_HEADERS, changetype<usize>(name), name.byteLength, out, out2);
  return found == 0 ? take() : null;
}

/** Begins a call; its token, or 0xffffffff when the host refuses (no such cluster, not ready). */
export function httpCall(cluster: ArrayBuffer, headers: ArrayBuffer, body: usize, size: u32, timeoutMs: u32): u32 {
  reset();
  // Zero pairs, not zero bytes: the host decodes the trailers' count in any case.
  const none: usize = out2;
  const result = host.httpCall(
    changetype<usize>(cluster),
    cluster.byteLength,
    changetype<usize>(headers),
    headers.byteLength,
    body,
    size,
    none,
    4,
    timeoutMs,
    out,
  );
  return result == 0 ? load<u32>(out) : 0xffffffff;
}

/** The form of a header map on the wire: count, sizes, then NUL-terminated names and values. */
export function headerMap(pairs: string[]): ArrayBuffer {
  const encoded = new Array<ArrayBuffer>();
  let size = 4;
  for (let i = 0; i < pairs.length; i++) {
    const bytes = utf8(pairs[i]);
    encoded.push(bytes);
    size += bytes.byteLength + 1 + 4;
  }
  const map = new ArrayBuffer(size);
  const start = changetype<usize>(map);
  store<u32>(start, pairs.length / 2);
  let at = start + 4 + <usize>(pairs.length * 4);
  for (let i = 0; i < encoded.length; i++) {
    const bytes = encoded[i];
    store<u32>(start + 4 + <usize>(i * 4), bytes.byteLength);
    memory.copy(at, changetype<usize>(bytes), bytes.byteLength);
    at += <usize>bytes.byteLength + 1;
  }
  return map;
}

export function setTickPeriod(ms: u32): void {
  host.setTickPeriod(ms);
}

/** Wall clock, nanoseconds since 1970. */
export function now(): u64 {
  host.now(out);
  return load<u64>(out);
}

export function random(): u64 {
  host.randomGet(out, 8);
  return load<u64>(out);
}

/** Makes another context the one that following host calls are about; false when it is gone. */
export function setEffectiveContext(context: u32): bool {
  return host.setEffectiveContext(context) == 0;
}

/** Closes the effective context's downstream connection; re-enters proxy_on_downstream_connection_close at once. */
export function closeDownstream(): void {
  host.closeStream(STREAM_DOWNSTREAM);
}

// asc --use abort=assembly/abi/abort: the language's own would print through an import that Envoy does not have.
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  warn('sluice: trap: ' + (message === null ? '' : message) + ' at ' + line.toString());
  unreachable();
}
