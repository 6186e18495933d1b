import {
  field,
  isObject,
  type Json,
  type OrderSource,
  objects,
  type Preset,
  type PresetEnvironment,
  withField,
} from './environment.ts';
import { withHcmPresets } from './hcm.ts';
import { connectionFilter } from './wasm.ts';

const HCM = '.http_connection_manager.v3.HttpConnectionManager';

/** Presets of one listener in Envoy's JSON form, whether from a bootstrap or from xDS. Idempotent. */
export function withListenerPresets(
  listener: Json,
  environment: PresetEnvironment,
  source: OrderSource = 'ads',
): Preset {
  const warnings: string[] = [];
  const name = typeof listener.name === 'string' && listener.name !== '' ? listener.name : addressName(listener);
  // Not TCP: there is no connection of ours to keep a table of, and preflight refuses to hand UDP over.
  const foreign = ['udp_listener_config', 'internal_listener', 'api_listener'].some(
    (f) => field(listener, f) !== undefined,
  );
  if (foreign) return { value: listener, warnings };
  let value = listener;
  const chains = field(value, 'filter_chains');
  if (Array.isArray(chains)) {
    value = withField(
      value,
      'filter_chains',
      objects(chains).map((c) => withChainPresets(c, name, environment, source, warnings)),
    );
  }
  const fallback = field(value, 'default_filter_chain');
  if (isObject(fallback)) {
    value = withField(value, 'default_filter_chain', withChainPresets(fallback, name, environment, source, warnings));
  }
  return { value, warnings };
}

function withChainPresets(
  chain: Json,
  listener: string,
  environment: PresetEnvironment,
  source: OrderSource,
  warnings: string[],
): Json {
  const filters = objects(chain.filters).map((filter) => {
    const config = field(filter, 'typed_config');
    if (!isObject(config)) return filter;
    const preset = (hcm: Json) => withHcmPresets(hcm, source, environment, `listener ${listener}`, warnings);
    if (typeof config['@type'] === 'string' && config['@type'].endsWith(HCM))
      return withField(filter, 'typed_config', preset(config));
    const wrapped = field(config, 'type_url');
    if (typeof wrapped === 'string' && wrapped.endsWith(HCM) && isObject(config.value)) {
      return withField(filter, 'typed_config', { ...config, value: preset(config.value) });
    }
    return filter;
  });
  const { wasmPath } = environment;
  if (wasmPath === undefined || filters.length === 0 || filters.some((f) => f.name === 'sluice.connection')) {
    return { ...chain, filters };
  }
  const kind = filters.some(isHcm) ? 'http' : 'tcp';
  return { ...chain, filters: [connectionFilter(wasmPath, listener, kind), ...filters] };
}

function isHcm(filter: Json): boolean {
  const config = field(filter, 'typed_config');
  if (!isObject(config)) return false;
  return [config['@type'], field(config, 'type_url')].some((t) => typeof t === 'string' && t.endsWith(HCM));
}

function addressName(listener: Json): string {
  const address = listener.address;
  const socket = isObject(address) ? field(address, 'socket_address') : undefined;
  return isObject(socket) ? `${String(socket.address)}:${String(field(socket, 'port_value'))}` : 'unnamed';
}
