import { DRAIN_RESOURCE, type DrainOrder } from '@sluice/contract';
import {
  drainTypedConfig,
  LEAVE_RESOURCE,
  leaveTypedConfig,
  noOpTypedConfig,
  orderMetadataTypedConfig,
} from '@sluice/contract/presets/index';
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

/** The ECDS resource of an epoch, a TypedExtensionConfig in Envoy's JSON. */
export interface DrainResource {
  readonly name: string;
  readonly typed_config: Record<string, unknown>;
}

/** What the slots of an epoch without a drain get, so that its listeners never wait for a resource. */
export function idleResources(): readonly DrainResource[] {
  return [DRAIN_RESOURCE, LEAVE_RESOURCE].map((name) => ({ name, typed_config: noOpTypedConfig() }));
}

/** What tells the connections to leave that the agent marks: beside an order whose policy chooses among them. */
export function leaveResource(): DrainResource {
  return { name: LEAVE_RESOURCE, typed_config: leaveTypedConfig() };
}

/**
 * The resource that carries an order. `wasm`: path of the module where that Envoy runs, from its node metadata; an
 * Envoy without one carries the order as metadata, which its agent reads.
 */
export function drainResource(order: DrainOrder, wasm: string | undefined): DrainResource {
  const text = JSON.stringify(order);
  const typed_config = wasm ? drainTypedConfig(wasm, text) : orderMetadataTypedConfig(text);
  return { name: DRAIN_RESOURCE, typed_config };
}
