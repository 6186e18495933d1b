import { follow, type Load, type Measure, startOf, type Usual } from './usual.ts';

/**
 * How the rate follows what the new epoch and the upstreams bear: halved when there is strain, a tenth of what policy
 * allows more with each quiet look. Pure.
 */
export interface Rate {
  readonly perSecond: number;
  readonly strain?: string;
  readonly usual: Usual;
  /** Looks in a row that showed strain although the rate could not be less. */
  readonly lasting: number;
}

const BUSY = 0.9;
/** A time within this of twice the usual is no strain, however small the usual one. */
const SLACK_MS = 20;
/** So many more connections or handshakes a second mean nothing. */
const SLACK_ARRIVALS = 20;
const SLACK_HANDSHAKES = 10;
/** By then those that were told at a faster rate have come, and the interval of Envoy's times (5 s) has passed. */
const LASTING_LOOKS = 6;

export function rateAt(perSecond: number, usual: Usual = {}): Rate {
  return { perSecond, usual, lasting: 0 };
}

/**
 * The rate one look later. `cap`: what policy (and the fleet's share) allows. Never below one a second, or the drain would
 * not end. `base`: what was usual before the drain. An empty load shows no strain.
 */
export function adaptRate(rate: Rate, cap: number, base: Usual, load: Load): Rate {
  const slowest = Math.min(1, cap);
  const strain = strainOf(rate, load);
  const lasting = strain !== undefined && rate.perSecond <= slowest ? rate.lasting + 1 : 0;
  const usual = follow(base, rate.usual, load, lasting >= LASTING_LOOKS);
  if (strain !== undefined) {
    return { perSecond: Math.max(slowest, Math.min(cap, rate.perSecond) / 2), strain, usual, lasting };
  }
  const perSecond = Math.min(cap, rate.perSecond + cap / 10);
  const more = perSecond < cap && rate.strain !== undefined ? { strain: rate.strain } : {};
  return { perSecond, usual, lasting, ...more };
}

function strainOf({ perSecond, usual }: Rate, load: Load): string | undefined {
  const { busy, opened = 0 } = load;
  if (busy !== undefined && busy > BUSY) return `the new epoch is busy ${Math.round(busy * 100)} % of the time`;
  /** The measure where it is beyond twice the usual and what is said of it. */
  const beyond = (key: Measure, slack: number, told = 0): { now: number; was: number } | undefined => {
    const now = load[key];
    const was = usual[key] ?? startOf(key);
    return now === undefined || was === undefined || now <= 2 * (was + told) + slack ? undefined : { now, was };
  };
  const refused = beyond('refused', 0);
  if (refused)
    return `the new epoch or its upstreams refused ${count(refused.now)} a second, usually ${count(refused.was)}`;
  const failed = beyond('failed', Math.max(2, opened / 10));
  if (failed) return `${count(failed.now)} TLS handshakes a second failed, usually ${count(failed.was)}`;
  const unfinished = beyond('unfinished', Math.max(SLACK_HANDSHAKES, opened / 2));
  if (unfinished)
    return `TLS handshakes lag behind by ${count(unfinished.now)} a second, usually ${count(unfinished.was)}`;
  // Each that was told comes once. More than that: they do not stay, or clients come in storms.
  const arrivals = beyond('arrivals', SLACK_ARRIVALS, perSecond);
  if (arrivals) return `${count(arrivals.now)} new connections a second, usually ${count(arrivals.was)}`;
  const latency = beyond('latencyMs', SLACK_MS);
  if (latency) return `nine of ten requests take up to ${count(latency.now)} ms, usually ${count(latency.was)}`;
  const connect = beyond('connectMs', SLACK_MS);
  if (connect)
    return `nine of ten connections to upstreams take up to ${count(connect.now)} ms, usually ${count(connect.was)}`;
  return undefined;
}

function count(value: number): string {
  return String(value < 10 ? Math.round(value * 10) / 10 : Math.round(value));
}
