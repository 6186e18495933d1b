export { OWN_DRAIN_GUARDS, orderSource, ownDrainGuards, withBootstrapPresets } from './bootstrap.ts';
export { type AgeCutoff, ageCutoffOf } from './duration.ts';
export type { Json, OrderSource, Preset, PresetEnvironment } from './environment.ts';
export {
  drainSlot,
  leaveSlot,
  leaves,
  MAX_CONNECTION_DURATION,
  NO_OP_TYPE,
  noOpTypedConfig,
  ORDER_METADATA_TYPE,
  orderMetadataTypedConfig,
} from './hcm.ts';
export { LEAVE_RESOURCE, LUA_TYPE, leaveTypedConfig } from './leave.ts';
export { isQuic, withListenerPresets } from './listener.ts';
export { drainTypedConfig, HTTP_WASM_TYPE } from './wasm.ts';
