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
import { HTTP_WASM_TYPE, upgradeFilter } from './wasm.ts';

/** A month: never reached in practice, and the age cut-off's step stays near 0.15 s (the scale is a float32). */
export const MAX_CONNECTION_DURATION = '2592000s';

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

function orderConfigSource(source: OrderSource, environment: PresetEnvironment): Json {
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
      return { resource_api_version: 'V3', path_config_source: { path: environment.orderFile } };
  }
}

/** The slot that the drain order is pushed into. Without warming: a controller that is away must not delay a start. */
export function drainSlot(source: OrderSource, environment: PresetEnvironment): Json {
  return {
    name: DRAIN_RESOURCE,
    config_discovery: {
      config_source: orderConfigSource(source, environment),
      default_config: noOpTypedConfig(),
      apply_default_config_without_warming: true,
      type_urls: [HTTP_WASM_TYPE, NO_OP_TYPE, ORDER_METADATA_TYPE],
    },
  };
}

/** Presets of one HTTP connection manager (the message, without its Any). `where` names it in warnings. */
export function withHcmPresets(
  hcm: Json,
  source: OrderSource,
  environment: PresetEnvironment,
  where: string,
  warnings: string[],
): Json {
  let value = hcm;
  const common = field(value, 'common_http_protocol_options');
  const options = isObject(common) ? common : {};
  if (field(options, 'max_connection_duration') === undefined) {
    const preset = withField(options, 'max_connection_duration', MAX_CONNECTION_DURATION);
    value = withField(value, 'common_http_protocol_options', preset);
  }
  // With it a silent idle HTTP/1 connection is left alone, so that no request on its way meets a close.
  if (field(value, 'http1_safe_max_connection_duration') === undefined) {
    value = withField(value, 'http1_safe_max_connection_duration', true);
  } else if (field(value, 'http1_safe_max_connection_duration') === false) {
    warnings.push(
      `${where}: http1_safe_max_connection_duration is off: idle HTTP/1 connections are closed at the start of a drain`,
    );
  }
  const filters = objects(field(value, 'http_filters'));
  const slotted = filters.some((f) => f.name === DRAIN_RESOURCE)
    ? filters
    : [drainSlot(source, environment), ...filters];
  value = withField(value, 'http_filters', slotted);
  const upgrades = field(value, 'upgrade_configs');
  const { wasmPath } = environment;
  if (Array.isArray(upgrades) && wasmPath !== undefined) {
    const preset = objects(upgrades).map((upgrade) => {
      const own = objects(field(upgrade, 'filters'));
      if (own.some((f) => f.name === 'sluice.upgrade')) return upgrade;
      // An upgrade has a filter chain of its own: only it pays for the look at its protocol.
      return withField(upgrade, 'filters', [upgradeFilter(wasmPath), ...(own.length > 0 ? own : slotted)]);
    });
    value = withField(value, 'upgrade_configs', preset);
  }
  return value;
}
