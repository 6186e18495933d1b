/** Kept back of the grace for what comes after the wait: the cut in turn, Envoy's end, the report, this process's end. */
const RESERVE_MS = 5_000;
const RESERVE_PART = 1 / 4;

/** What an end asks for: a preStop hook, SIGTERM, or both, one after the other. */
export interface EndAsked {
  /** First of the two, epoch ms: the kubelet's grace runs from the start of the preStop hook (kuberuntime, killContainer). */
  readonly at: number;
  /** terminationGracePeriodSeconds in ms; absent: nobody kills by the clock. */
  readonly graceMs?: number | undefined;
  /** Longest drain that the user wants of what served until now; an old container is held as long as the grace allows. */
  readonly drainMs: number;
  /** When that drain began, where it did not with `at`. */
  readonly drainAt?: number | undefined;
}

/** Whoever sends to a Pod hears some time after its end has begun that it is to get nothing more. */
const LINGER_MS = 5_000;
const LINGER_PART = 1 / 4;

/** Until when what serves goes on as before after its Pod's preStop hook; without a grace there is no Pod. */
export function lingerUntil({ at, graceMs = 0 }: EndAsked): number {
  return at + Math.min(LINGER_MS, Math.floor(graceMs * LINGER_PART));
}

/** Until when connections are waited for. `byGrace`: it is the grace that ends the wait, and not the user's own bound. */
export function waitUntil(
  { at, graceMs, drainMs, drainAt = at }: EndAsked,
  end: 'hold' | 'drain',
): { readonly until: number; readonly byGrace: boolean } {
  const own = drainAt + drainMs;
  if (graceMs === undefined) return { until: own, byGrace: false };
  const grace = at + graceMs - Math.min(RESERVE_MS, Math.floor(graceMs * RESERVE_PART));
  return end === 'hold' || grace <= own ? { until: grace, byGrace: true } : { until: own, byGrace: false };
}

/** Why connections that policy protects were cut, for the record. */
export function whyCut({ graceMs, drainMs }: EndAsked, byGrace: boolean): string {
  return byGrace
    ? `the termination grace of ${seconds(graceMs ?? 0)} ends before their drain does`
    : `the longest drain of an end, ${seconds(drainMs)}, is over`;
}

/** What an end may be: of an old container, whose peer has taken over, or of all that serves. */
export type End = 'hold' | 'drain' | 'wait';

/** `wait`: the peer is taking over at this moment, and what this end is depends on whether it comes to serve. */
export function endOf(facts: { readonly serving: boolean; readonly taking: boolean }): End {
  if (!facts.serving) return 'hold';
  return facts.taking ? 'wait' : 'drain';
}

function seconds(ms: number): string {
  return `${Math.round(ms / 100) / 10} s`;
}
