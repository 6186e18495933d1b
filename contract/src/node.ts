/** Keys under `node.metadata` of a bootstrap that the agent starts; the controller and the filter read them. */
export const NODE_METADATA = {
  /** Name of the proxy, where node.id is the user's own. */
  proxy: 'SLUICE_PROXY',
  /** Epoch of this Envoy, as a string: the filter reads it as a property. */
  epoch: 'SLUICE_EPOCH',
  slot: 'SLUICE_SLOT',
  /** Absolute path of sluice.wasm where this Envoy runs. */
  wasm: 'SLUICE_WASM',
  /** `1`: its listeners have the slot of the Lua filter that tells single connections to leave. */
  leave: 'SLUICE_LEAVE',
} as const;

/** Clusters that the presets put into the bootstrap. */
export const AGENT_CLUSTER = 'sluice_agent';
export const CONTROLLER_CLUSTER = 'sluice_controller';

/** All parts of the filter share one VM per thread: same vm_id, code and vm configuration. */
export const WASM_VM_ID = 'sluice';
/** root_id of each part of the filter. */
export const WASM_ROOT = {
  /** Bootstrap extension, one per thread: reports to the agent on its tick. */
  service: 'service',
  /** Network filter of every filter chain; configuration: JSON `{"listener": NAME, "kind": "http"|"tcp"}`. */
  connection: 'connection',
  /** HTTP filter in front of upgrade requests only (upgrade_configs.filters), so that a WebSocket is known from birth. */
  upgrade: 'upgrade',
  /** HTTP filter of the drain, by ECDS to old epochs only; configuration: the DrainOrder as JSON. */
  drain: 'drain',
} as const;

/** Where the filter posts its reports on the agent's Unix socket. */
export const REPORT_PATH = '/v1/report';
