import { DRAIN_RESOURCE, type DrainOrder, WASM_ROOT, WASM_VM_ID } from '@sluice/contract';
import type { UpgradeState } from './state.ts';

/** The first order of an upgrade's drain: all connections of the old epoch, whatever their age. */
export function buildOrder(state: UpgradeState, oldEpoch: number, now: number): DrainOrder {
  return {
    v: 1,
    upgradeId: state.id,
    epoch: oldEpoch,
    version: 1,
    action: 'drain',
    policy: state.policy,
    cutoffAgeMs: 0,
    issuedAt: now,
  };
}

const NO_OP = {
  '@type': 'type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation',
  mutations: {},
};

/** What an epoch without a drain gets, so that its listeners never wait for the resource. Envoy's JSON. */
export function idleDrainResource(): Record<string, unknown> {
  return { name: DRAIN_RESOURCE, typed_config: NO_OP };
}

/**
 * The ECDS resource (a TypedExtensionConfig in Envoy's JSON) that carries an order. `wasm`: path of the module where
 * that Envoy runs, from its node metadata. A `stop` for an Envoy without the module is the no-op.
 */
export function drainResource(order: DrainOrder, wasm: string | undefined): Record<string, unknown> {
  if (wasm === undefined) return idleDrainResource();
  return {
    name: DRAIN_RESOURCE,
    typed_config: {
      '@type': 'type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm',
      config: {
        name: DRAIN_RESOURCE,
        root_id: WASM_ROOT.drain,
        // A filter of ours never stops traffic: after a trap requests pass it by.
        failure_policy: 'FAIL_OPEN',
        vm_config: {
          vm_id: WASM_VM_ID,
          runtime: 'envoy.wasm.runtime.v8',
          code: { local: { filename: wasm } },
        },
        configuration: {
          '@type': 'type.googleapis.com/google.protobuf.StringValue',
          value: JSON.stringify(order),
        },
      },
    },
  };
}
