// The host functions of proxy-wasm ABI 0.2.1 that are in use. In a file of its own because a decorator on a declaration is
// AssemblyScript's alone: no formatter reads it.
// https://github.com/proxy-wasm/spec/blob/main/abi-versions/v0.2.1/README.md

@external("env", "proxy_log")
export declare function log(level: i32, text: usize, size: usize): i32;
@external("env", "proxy_get_property")
export declare function getProperty(path: usize, pathSize: usize, value: usize, valueSize: usize): i32;
@external("env", "proxy_set_property")
export declare function setProperty(path: usize, pathSize: usize, value: usize, valueSize: usize): i32;
@external("env", "proxy_get_buffer_bytes")
export declare function getBuffer(kind: i32, start: usize, max: usize, value: usize, valueSize: usize): i32;
@external("env", "proxy_get_header_map_value")
export declare function getHeader(kind: i32, key: usize, keySize: usize, value: usize, valueSize: usize): i32;
@external("env", "proxy_http_call")
export declare function httpCall(
  upstream: usize, upstreamSize: usize, headers: usize, headersSize: usize, body: usize, bodySize: usize,
  trailers: usize, trailersSize: usize, timeoutMs: u32, token: usize): i32;
@external("env", "proxy_set_tick_period_milliseconds")
export declare function setTickPeriod(ms: u32): i32;
@external("env", "proxy_get_current_time_nanoseconds")
export declare function now(result: usize): i32;
@external("env", "proxy_set_effective_context")
export declare function setEffectiveContext(context: u32): i32;
@external("env", "proxy_close_stream")
export declare function closeStream(kind: i32): i32;
@external("wasi_snapshot_preview1", "random_get")
export declare function randomGet(buffer: usize, size: usize): i32;
