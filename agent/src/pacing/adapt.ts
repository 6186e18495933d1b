/**
 * How the rate follows what the new epoch and the upstreams bear: halved when there is strain, a tenth of what policy
 * allows more with each quiet look. Pure.
 */
export interface Load {
  /** Share of its workers' time that the new epoch is busy, 0 to 1. */
  readonly busy?: number;
  /** Counters of the new epoch, growing: connections and requests refused or failed for want of room or of an upstream. */
  readonly refused?: number;
  /** Nine of ten requests of the last interval took at most so long, ms; and so long before the drain. */
  readonly latencyMs?: number;
  readonly usualMs?: number;
}

export interface Rate {
  readonly perSecond: number;
  readonly strain?: string;
}

const BUSY = 0.9;
/** A latency within this of the usual is no strain, however small the usual one. */
const SLACK_MS = 20;

/** `cap`: what policy (and the fleet's share) allows. Never below one a second, or the drain would not end. */
export function adaptRate(rate: Rate, cap: number, before: Load | undefined, now: Load): Rate {
  const strain = strainOf(before, now);
  if (strain !== undefined) return { perSecond: Math.max(Math.min(1, cap), Math.min(cap, rate.perSecond) / 2), strain };
  const perSecond = Math.min(cap, rate.perSecond + cap / 10);
  return perSecond < cap && rate.strain !== undefined ? { perSecond, strain: rate.strain } : { perSecond };
}

function strainOf(before: Load | undefined, now: Load): string | undefined {
  const refused = (now.refused ?? 0) - (before?.refused ?? now.refused ?? 0);
  if (refused > 0) return `the new epoch or its upstreams refused ${refused}`;
  if (now.busy !== undefined && now.busy > BUSY)
    return `the new epoch is busy ${Math.round(now.busy * 100)} % of the time`;
  const { latencyMs, usualMs } = now;
  if (latencyMs !== undefined && usualMs !== undefined && latencyMs > 2 * usualMs + SLACK_MS) {
    return `nine of ten requests take up to ${Math.round(latencyMs)} ms, usually ${Math.round(usualMs)}`;
  }
  return undefined;
}
