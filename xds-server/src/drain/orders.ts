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
export function buildOrder(
  state: UpgradeState,
  oldEpoch: number,
  now: number,
  { known, share }: { readonly known?: number | undefined; readonly share?: number | undefined } = {},
): DrainOrder {
  return {
    v: 1,
    upgradeId: state.id,
    epoch: oldEpoch,
    version: nextVersion(now, known),
    action: 'drain',
    policy: state.policy,
    cutoffAgeMs: 0,
    ...(share !== undefined && { pace: { perSecond: share } }),
    issuedAt: now,
  };
}

/** The same order with this proxy's share of its fleet's rate. */
export function withPace(order: DrainOrder, perSecond: number, now: number): DrainOrder {
  return { ...order, version: nextVersion(now, order.version), pace: { perSecond } };
}

/**
 * Of the clock, so that it grows from one upgrade to the next too: two of them may drain the same epoch one after the
 * other, and neither the filter nor the agent takes an order that is not newer. `known`: the newest given so far.
 */
function nextVersion(now: number, known = 0): number {
  return Math.max(Math.floor(now), known + 1);
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
