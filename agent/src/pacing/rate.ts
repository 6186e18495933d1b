import type { DrainOrder } from '@sluice/contract';

/** The rate of an order, connections a second; 0 = all at once. */
export function rateOf(order: DrainOrder): number {
  const own = order.policy.pacing.perSecond;
  const share = order.pace?.perSecond;
  if (share === undefined) return own;
  return own === 0 ? share : Math.min(own, share);
}
