import type { Json } from './environment.ts';

/** Name of the ECDS resource (an HTTP filter in front of the drain's) that tells marked connections to leave. */
export const LEAVE_RESOURCE = 'sluice.leave';

export const LUA_TYPE = 'type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua';

/**
 * The drain's filter, which no proxy-wasm call lets send a GOAWAY, sets `sluice.leave` in the filter state of a marked
 * connection's responses (Envoy writes `wasm.` before the name); this asks Envoy for a graceful drain of that connection.
 * Nothing passes between the two that could reach a client, so it does not matter which of them a worker has first. Both
 * calls are looked for, because an error in Lua is a line in Envoy's log for each response.
 */
const LEAVE_LUA = `
function envoy_on_response(handle)
  local info = handle:streamInfo()
  if not info.filterState or not info.drainConnectionUponCompletion then return end
  if info:filterState():get("wasm.sluice.leave") then info:drainConnectionUponCompletion() end
end
`;

/** What the slot holds while a drain chooses connections one by one. */
export function leaveTypedConfig(): Json {
  return { '@type': LUA_TYPE, default_source_code: { inline_string: LEAVE_LUA } };
}
