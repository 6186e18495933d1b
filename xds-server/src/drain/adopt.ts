import type { AgentMessage, DrainPolicy, EpochStatus } from '@sluice/contract';
import { buildOrder } from './orders.ts';
import type { UpgradeState } from './state.ts';

/** The upgrade that stands for a drain which an agent began by itself. */
export function adoptedUpgrade(found: {
  readonly id: string;
  readonly proxy: string;
  readonly slot: string;
  readonly old: EpochStatus;
  readonly serving: EpochStatus | undefined;
  readonly policy: DrainPolicy;
  readonly now: number;
}): UpgradeState {
  const { id, proxy, slot, old, serving, policy, now } = found;
  const state: UpgradeState = {
    id,
    proxy,
    target: { to: serving?.binary ?? serving?.version ?? 'unknown' },
    policy,
    createdAt: old.drainingSince ?? now,
    phase: 'Draining',
    phaseSince: now,
    reason: `epoch ${old.epoch} (${old.version}) drains by its agent's own decision`,
    attempts: 0,
    slot: serving?.slot ?? slot,
    oldSlot: slot,
    oldEpoch: old.epoch,
    from: old.version,
    ...(serving === undefined
      ? {}
      : { epoch: serving.epoch, to: serving.version, ...(serving.method !== undefined && { method: serving.method }) }),
  };
  return { ...state, order: buildOrder(state, old.epoch, now, { known: old.orderVersion }) };
}

/**
 * The upgrade that stands for a take-over between two agents, as the new one tells it: nobody asked this controller for it
 * (the image of a container was changed).
 */
export function handedOver(found: {
  readonly proxy: string;
  readonly slot: string;
  readonly told: Extract<AgentMessage, { type: 'serving' }> & { readonly oldSlot: string };
  /** The old epoch as its own agent told it, if it has. */
  readonly old: EpochStatus | undefined;
  readonly policy: DrainPolicy;
  readonly now: number;
}): UpgradeState {
  const { proxy, slot, told, old, policy, now } = found;
  const { upgradeId, epoch, oldEpoch, oldSlot, from, to, method } = told;
  const state: UpgradeState = {
    id: upgradeId,
    proxy,
    target: { to },
    policy,
    createdAt: now,
    phase: 'Draining',
    phaseSince: now,
    reason: `epoch ${epoch} (${to}) of slot ${slot} serves, epoch ${oldEpoch} (${from}) of slot ${oldSlot} drains`,
    attempts: 0,
    slot,
    oldSlot,
    oldEpoch,
    from,
    epoch,
    to,
    method,
  };
  return { ...state, order: buildOrder(state, oldEpoch, now, { known: old?.orderVersion }) };
}
