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
import { isHcmType, withDuration, withHcmPresets } from './hcm.ts';
import { CONNECTION_FILTER, connectionFilter } from './wasm.ts';

/** Presets of one listener in Envoy's JSON form, whether from a bootstrap or from xDS. Idempotent. */
export function withListenerPresets(
  listener: Json,
  environment: PresetEnvironment,
  source: OrderSource = 'ads',
): Preset {
  const warnings: string[] = [];
  const name = typeof listener.name === 'string' && listener.name !== '' ? listener.name : addressName(listener);
  if (isQuic(listener)) return { value: withQuicPresets(listener, name, warnings), warnings };
  if (!takesPresets(listener)) return { value: listener, warnings };
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

/** HTTP/3 comes in here. */
export function isQuic(listener: Json): boolean {
  const udp = field(listener, 'udp_listener_config');
  return isObject(udp) && isObject(field(udp, 'quic_options'));
}

function withQuicPresets(listener: Json, name: string, warnings: string[]): Json {
  let value = listener;
  const where = `listener ${name}`;
  const inChain = (chain: Json) => ({
    ...chain,
    filters: objects(chain.filters).map((filter) => withHcmOf(filter, (hcm) => withDuration(hcm, where, warnings))),
  });
  const chains = field(value, 'filter_chains');
  if (Array.isArray(chains)) value = withField(value, 'filter_chains', objects(chains).map(inChain));
  const fallback = field(value, 'default_filter_chain');
  return isObject(fallback) ? withField(value, 'default_filter_chain', inChain(fallback)) : value;
}

/** The filter with its HTTP connection manager changed, where it is one. */
function withHcmOf(filter: Json, preset: (hcm: Json) => Json): Json {
  const config = field(filter, 'typed_config');
  if (!isObject(config)) return filter;
  if (isHcmType(config['@type'])) return withField(filter, 'typed_config', preset(config));
  if (isHcmType(field(config, 'type_url')) && isObject(config.value)) {
    return withField(filter, 'typed_config', { ...config, value: preset(config.value) });
  }
  return filter;
}

/**
 * Whether downstream connections over TCP or a Unix socket come in here. Not over QUIC, which gets presets of its own, nor
 * over other UDP, which preflight refuses to hand over; not from inside Envoy (internal and API listeners); not by a connection that Envoy itself opened (reverse).
 */
export function takesPresets(listener: Json): boolean {
  const foreign = ['udp_listener_config', 'internal_listener', 'api_listener'];
  if (foreign.some((f) => field(listener, f) !== undefined)) return false;
  const address = isObject(listener.address) ? listener.address : {};
  if (field(address, 'envoy_internal_address') !== undefined) return false;
  const found = field(address, 'socket_address');
  const socket = isObject(found) ? found : {};
  const reverse =
    /^rc:\/\//.test(String(socket.address ?? '')) || /reverse/.test(String(field(socket, 'resolver_name') ?? ''));
  return !reverse && socket.protocol !== 'UDP' && socket.protocol !== 1;
}

function withChainPresets(
  chain: Json,
  listener: string,
  environment: PresetEnvironment,
  source: OrderSource,
  warnings: string[],
): Json {
  const filters = objects(chain.filters).map((filter) => {
    if (field(filter, 'config_discovery') !== undefined) {
      warnings.push(
        `listener ${listener}: the network filter ${String(filter.name)} comes by ECDS: an HTTP connection manager in it gets no presets`,
      );
    }
    return withHcmOf(filter, (hcm) => withHcmPresets(hcm, source, environment, `listener ${listener}`, warnings));
  });
  const { wasmPath } = environment;
  if (wasmPath === undefined || filters.length === 0 || filters.some((f) => f.name === CONNECTION_FILTER)) {
    return { ...chain, filters };
  }
  const kind = filters.some(isHcm) ? 'http' : 'tcp';
  return { ...chain, filters: [connectionFilter(wasmPath, listener, kind), ...filters] };
}

function isHcm(filter: Json): boolean {
  const config = field(filter, 'typed_config');
  if (!isObject(config)) return false;
  return isHcmType(config['@type']) || isHcmType(field(config, 'type_url'));
}

function addressName(listener: Json): string {
  const address = listener.address;
  const socket = isObject(address) ? field(address, 'socket_address') : undefined;
  const pipe = isObject(address) && isObject(address.pipe) ? address.pipe.path : undefined;
  if (typeof pipe === 'string') return pipe;
  return isObject(socket) ? `${String(socket.address)}:${String(field(socket, 'port_value'))}` : 'unnamed';
}
