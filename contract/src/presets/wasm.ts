import { WASM_ROOT, WASM_VM_ID } from '../node.ts';
import type { Json } from './environment.ts';

const TYPE = {
  service: 'type.googleapis.com/envoy.extensions.wasm.v3.WasmService',
  network: 'type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm',
  http: 'type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm',
} as const;

/** Names of the filters that the presets insert; what bears one is never inserted twice. */
export const CONNECTION_FILTER = 'sluice.connection';
export const UPGRADE_FILTER = 'sluice.upgrade';

export const HTTP_WASM_TYPE = TYPE.http;

/**
 * One part of the filter. Code, vm_id and vm configuration are the same for all parts: that makes them share a VM per
 * thread. A trap lets traffic through.
 */
function plugin(root: string, wasmPath: string, configuration?: string): Json {
  return {
    name: `sluice.${root}`,
    root_id: root,
    failure_policy: 'FAIL_OPEN',
    vm_config: {
      vm_id: WASM_VM_ID,
      runtime: 'envoy.wasm.runtime.v8',
      code: { local: { filename: wasmPath } },
    },
    ...(configuration !== undefined && {
      configuration: { '@type': 'type.googleapis.com/google.protobuf.StringValue', value: configuration },
    }),
  };
}

export function serviceExtension(wasmPath: string): Json {
  return {
    name: 'envoy.bootstrap.wasm',
    typed_config: { '@type': TYPE.service, singleton: false, config: plugin(WASM_ROOT.service, wasmPath) },
  };
}

export function connectionFilter(wasmPath: string, listener: string, kind: 'http' | 'tcp'): Json {
  const configuration = JSON.stringify({ listener, kind });
  return {
    name: CONNECTION_FILTER,
    typed_config: { '@type': TYPE.network, config: plugin(WASM_ROOT.connection, wasmPath, configuration) },
  };
}

export function upgradeFilter(wasmPath: string): Json {
  return { name: UPGRADE_FILTER, typed_config: { '@type': TYPE.http, config: plugin(WASM_ROOT.upgrade, wasmPath) } };
}

/** The typed_config of the drain's filter; `order` is the DrainOrder as JSON. */
export function drainTypedConfig(wasmPath: string, order: string): Json {
  return { '@type': TYPE.http, config: plugin(WASM_ROOT.drain, wasmPath, order) };
}
