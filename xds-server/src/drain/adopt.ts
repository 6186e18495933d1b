import type { DrainPolicy, EpochStatus } from '@sluice/contract';
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
    slot,
    oldSlot: slot,
    oldEpoch: old.epoch,
    from: old.version,
    ...(serving === undefined ? {} : { epoch: serving.epoch, to: serving.version }),
  };
  return { ...state, order: buildOrder(state, old.epoch, now, old.orderVersion) };
}
