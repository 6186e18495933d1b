import type { UpgradeState } from './state.ts';

/** One drain under a fleet's pacing. */
export interface FleetDrain {
  readonly id: string;
  /** What its policy allows all of them together, connections a second. */
  readonly perSecond: number;
  /** Connections that wait for their turn; undefined: not said yet. */
  readonly left?: number;
  /** Its share now. */
  readonly share?: number;
}

/** Smaller changes are not worth an order. */
const WORTH = 0.1;
/** No drain may stand still because others are larger. */
const LEAST = 0.1;

/**
 * How the drains that go on at once share one rate: each by how many of its connections still wait, one that has not
 * said yet like the average of the others. Only the shares that change by more than a tenth.
 */
export function fleetShares(drains: readonly FleetDrain[]): ReadonlyMap<string, number> {
  const said = drains.flatMap((one) => (one.left === undefined ? [] : [one.left]));
  const usual = said.length === 0 ? 1 : said.reduce((a, b) => a + b, 0) / said.length;
  const weight = (one: FleetDrain) => one.left ?? Math.max(1, usual);
  const whole = drains.reduce((sum, one) => sum + weight(one), 0);
  const changed = new Map<string, number>();
  for (const one of drains) {
    // The last ones have nobody left to share with, and nobody to tell either.
    if (one.left === 0) continue;
    const fair = whole === 0 ? one.perSecond : (one.perSecond * weight(one)) / whole;
    const share = Math.max(LEAST, Math.round(fair * 10) / 10);
    if (one.share === undefined || Math.abs(share - one.share) > WORTH * one.share) changed.set(one.id, share);
  }
  return changed;
}

/**
 * The share that a drain begins with beside these. Without it each would begin with the whole rate, until its first
 * verdict is heard.
 */
export function firstShare(others: readonly FleetDrain[], { id, policy }: UpgradeState): number | undefined {
  const { scope, perSecond } = policy.pacing;
  const rest = others.filter((one) => one.id !== id);
  if (scope !== 'fleet' || perSecond === 0 || rest.length === 0) return undefined;
  return fleetShares([...rest, { id, perSecond }]).get(id);
}

/** The drains under fleet pacing among these upgrades. */
export function fleetDrains(states: readonly UpgradeState[]): FleetDrain[] {
  return states.flatMap(({ id, phase, policy, order, verdict, resetAt }) => {
    if (phase !== 'Draining' || order === undefined || resetAt !== undefined) return [];
    const { scope, perSecond } = policy.pacing;
    if (scope !== 'fleet' || perSecond === 0) return [];
    const left = verdict?.pacing?.left ?? verdict?.total;
    const share = order.pace?.perSecond;
    return [{ id, perSecond, ...(left !== undefined && { left }), ...(share !== undefined && { share }) }];
  });
}
