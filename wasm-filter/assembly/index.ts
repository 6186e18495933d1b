// The exports: the hooks of ABI 0.2.1 that are in use, and no other. There is no proxy_on_downstream_data and no
// proxy_on_upstream_data, so that in the steady state a request costs nothing; the HTTP hooks run only where an HTTP
// part of ours is in the filter chain. Every hook lets traffic go on.

import * as parts from './parts';
import * as reporter from './reporter';

const CONTINUE: i32 = 0;

export function proxy_abi_version_0_2_1(): void {}

export function malloc(size: usize): usize {
  return heap.alloc(size);
}

export function proxy_on_vm_start(context: u32, size: u32): i32 {
  return 1;
}

export function proxy_on_context_create(context: u32, parent: u32): void {
  parts.create(context, parent);
}

/** Always true: false would make Envoy refuse the resource, or fail every connection. */
export function proxy_on_configure(context: u32, size: u32): i32 {
  parts.configure(context, size);
  return 1;
}

export function proxy_on_tick(context: u32): void {
  if (parts.isService(context)) reporter.tick();
}

export function proxy_on_http_call_response(
  context: u32,
  token: u32,
  headers: u32,
  bodySize: u32,
  trailers: u32,
): void {
  reporter.answered(token, headers, bodySize);
}

export function proxy_on_new_connection(context: u32): i32 {
  parts.connected(context);
  return CONTINUE;
}

/** `by`: 0 unknown, 1 Envoy, 2 the peer; the numbers of a close record. */
export function proxy_on_downstream_connection_close(context: u32, by: i32): void {
  parts.disconnected(context, <u8>by);
}

export function proxy_on_request_headers(context: u32, headers: u32, end: i32): i32 {
  parts.requestBegan(context);
  return CONTINUE;
}

export function proxy_on_request_body(context: u32, size: u32, end: i32): i32 {
  parts.streamed(context, size);
  return CONTINUE;
}

export function proxy_on_response_headers(context: u32, headers: u32, end: i32): i32 {
  parts.responseBegan(context);
  return CONTINUE;
}

export function proxy_on_response_body(context: u32, size: u32, end: i32): i32 {
  parts.streamed(context, size);
  return CONTINUE;
}

export function proxy_on_delete(context: u32): void {
  parts.deleted(context);
}
