import { CONTROLLER_CLUSTER } from '../node.ts';
import { DRAIN_RESOURCE } from '../order.ts';
import {
  field,
  isObject,
  type Json,
  type OrderSource,
  objects,
  type PresetEnvironment,
  withField,
} from './environment.ts';
import { LEAVE_RESOURCE, LUA_TYPE } from './leave.ts';
import { HTTP_WASM_TYPE, UPGRADE_FILTER, upgradeFilter } from './wasm.ts';

const HCM = '.http_connection_manager.v3.HttpConnectionManager';

/** Whether a type URL is that of an HTTP connection manager. */
export function isHcmType(type: unknown): boolean {
  return typeof type === 'string' && type.endsWith(HCM);
}

/**
 * A week. Pacing needs fine steps: Envoy keeps the scale of the age cut-off in a float32, whose step near 1 is 2^-24, so
 * 36 ms of a week (of the 30 days that were here before: 0.15 s). A connection that reaches it is told to leave as in a
 * drain, once a week, and ends in its own time.
 */
export const MAX_CONNECTION_DURATION = '604800s';

export const NO_OP_TYPE = 'type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation';

/** Carries the order to an Envoy without WASM, whose agent reads it in the admin's config dump. */
export const ORDER_METADATA_TYPE = 'type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config';

export function orderMetadataTypedConfig(order: string): Json {
  return {
    '@type': ORDER_METADATA_TYPE,
    metadata: [{ metadata_namespace: DRAIN_RESOURCE, allow_overwrite: true, value: { order } }],
  };
}

/** A filter that does nothing and costs next to nothing: what the drain's slot holds until there is an order. */
export function noOpTypedConfig(): Json {
  return { '@type': NO_OP_TYPE, mutations: {} };
}

function configSource(source: OrderSource, file: string): Json {
  switch (source) {
    case 'ads':
      return { ads: {}, resource_api_version: 'V3' };
    case 'own':
      return {
        resource_api_version: 'V3',
        api_config_source: {
          api_type: 'GRPC',
          transport_api_version: 'V3',
          grpc_services: [{ envoy_grpc: { cluster_name: CONTROLLER_CLUSTER } }],
        },
      };
    case 'file':
      return { resource_api_version: 'V3', path_config_source: { path: file } };
  }
}

/** A filter filled by ECDS. Without warming: a controller that is away must not delay a start. */
function slot(name: string, config_source: Json, types: readonly string[]): Json {
  return {
    name,
    config_discovery: {
      config_source,
      default_config: noOpTypedConfig(),
      apply_default_config_without_warming: true,
      type_urls: [...types, NO_OP_TYPE],
    },
  };
}

/** The slot that the drain order is pushed into. */
export function drainSlot(source: OrderSource, environment: PresetEnvironment): Json {
  return slot(DRAIN_RESOURCE, configSource(source, environment.orderFile), [HTTP_WASM_TYPE, ORDER_METADATA_TYPE]);
}

/**
 * Whether single connections can be told to leave: not without the filter, not on an Envoy whose Lua can not ask for it,
 * not where a file would feed the slot and there is none.
 */
export function leaves(source: OrderSource, environment: PresetEnvironment): boolean {
  const { wasmPath, leave, leaveFile } = environment;
  return wasmPath !== undefined && leave === true && (source !== 'file' || leaveFile !== undefined);
}

/** The slot in front of it, for what tells single connections to leave. */
export function leaveSlot(source: OrderSource, environment: PresetEnvironment): Json | undefined {
  if (!leaves(source, environment)) return undefined;
  return slot(LEAVE_RESOURCE, configSource(source, environment.leaveFile ?? ''), [LUA_TYPE]);
}

/** Both slots in front, each once: the user's own filters run behind what tells a connection to leave. */
function withSlots(filters: readonly Json[], source: OrderSource, environment: PresetEnvironment): Json[] {
  const drain = filters.find((f) => f.name === DRAIN_RESOURCE) ?? drainSlot(source, environment);
  const leave = filters.find((f) => f.name === LEAVE_RESOURCE) ?? leaveSlot(source, environment);
  const rest = filters.filter((f) => f.name !== DRAIN_RESOURCE && f.name !== LEAVE_RESOURCE);
  return [...(leave === undefined ? [] : [leave]), drain, ...rest];
}

/** Their state is kept per filter chain: the copy for upgrades counts apart from the one for requests. */
const COUNTING = /\.(local_ratelimit|adaptive_concurrency|admission_control|bandwidth_limit)\./;

/** Presets of one HTTP connection manager (the message, without its Any). `where` names it in warnings. */
export function withHcmPresets(
  hcm: Json,
  source: OrderSource,
  environment: PresetEnvironment,
  where: string,
  warnings: string[],
): Json {
  let value = withDuration(hcm, where, warnings);
  const filters = objects(field(value, 'http_filters'));
  // A filter list must end with a terminal filter: an empty one is not ours to begin.
  if (filters.length === 0) return value;
  const slotted = withSlots(filters, source, environment);
  value = withField(value, 'http_filters', slotted);
  const { wasmPath } = environment;
  if (wasmPath === undefined) return value;
  const upgrades = upgradeConfigs(value, wasmPath, slotted);
  if (upgrades.length === 0) return value;
  if (COUNTING.test(JSON.stringify(filters))) {
    warnings.push(`${where}: upgrades get filters of their own: what counts requests (rate limits) counts them apart`);
  }
  return withField(value, 'upgrade_configs', upgrades);
}

/** All that a QUIC listener's connection manager gets: its connections are told by the pressure, and seen by no filter. */
export function withDuration(hcm: Json, where: string, warnings: string[]): Json {
  let value = hcm;
  const common = field(value, 'common_http_protocol_options');
  const options = isObject(common) ? common : {};
  const duration = field(options, 'max_connection_duration') ?? undefined;
  if (duration === undefined) {
    const preset = withField(options, 'max_connection_duration', MAX_CONNECTION_DURATION);
    value = withField(value, 'common_http_protocol_options', preset);
  } else if (duration !== MAX_CONNECTION_DURATION) {
    warnings.push(
      `${where}: max_connection_duration ${String(duration)} is kept: a drain of all works, one by age (pacing) only where every listener has the same`,
    );
  }
  // With it a silent idle HTTP/1 connection is left alone, so that no request on its way meets a close.
  const safe = field(value, 'http1_safe_max_connection_duration') ?? undefined;
  if (safe === undefined) return withField(value, 'http1_safe_max_connection_duration', true);
  if (safe === false) {
    warnings.push(
      `${where}: http1_safe_max_connection_duration is off: idle HTTP/1 connections are closed at the start of a drain`,
    );
  }
  return value;
}

/**
 * An upgrade has a filter chain of its own, so that only it pays for the look at its protocol. Upgrade types that only an
 * inline route enables get an entry that is off: it gives the filters, the route decides (Envoy: createUpgradeFilterChain).
 */
function upgradeConfigs(hcm: Json, wasmPath: string, filters: readonly Json[]): Json[] {
  const named = objects(field(hcm, 'upgrade_configs')).map((upgrade) => {
    const own = objects(field(upgrade, 'filters'));
    if (own.some((f) => f.name === UPGRADE_FILTER)) return upgrade;
    return withField(upgrade, 'filters', [upgradeFilter(wasmPath), ...(own.length > 0 ? own : filters)]);
  });
  const types = new Set(named.map((u) => String(field(u, 'upgrade_type')).toLowerCase()));
  const byRoute = routeUpgrades(field(hcm, 'route_config')).filter((type) => !types.has(type));
  return [
    ...named,
    ...byRoute.map((type) => ({
      upgrade_type: type,
      enabled: false,
      filters: [upgradeFilter(wasmPath), ...filters],
    })),
  ];
}

function routeUpgrades(routeConfig: unknown): string[] {
  const hosts = isObject(routeConfig) ? objects(field(routeConfig, 'virtual_hosts')) : [];
  const types = hosts
    .flatMap((host) => objects(host.routes))
    .flatMap((route) => (isObject(route.route) ? objects(field(route.route, 'upgrade_configs')) : []))
    .filter((upgrade) => upgrade.enabled !== false)
    .map((upgrade) => String(field(upgrade, 'upgrade_type')).toLowerCase());
  return [...new Set(types)];
}
