/**
 * When connections will end, from how long others took. Durations fall into buckets of a constant ratio; each class of
 * connections has a hazard per bucket (Kaplan and Meier: what ended in it, of all that reached it, those still open
 * counted as long as they are). A bucket that nothing is known of has the hazard of a Pareto law of exponent 1: what has
 * lasted for t lasts as likely as not for another t. So the first word is the connection's age, and what is observed
 * takes its place.
 */
const FIRST_MS = 50;
const RATIO = Math.SQRT2;
const LOG_RATIO = Math.log(RATIO);
/** To beyond 30 days. */
const BUCKETS = 52;
/** Weight of the law above beside one observation. */
const PRIOR = 0.5;
const PRIOR_HAZARD = 1 - 1 / RATIO;
/** Beyond it nothing is said. */
const HORIZON_MS = 30 * 24 * 3_600_000;

/** How many ended in each bucket, by class. Plain JSON. */
export interface Lifetimes {
  readonly ended: Readonly<Record<string, readonly number[]>>;
}

export const NO_LIFETIMES: Lifetimes = { ended: {} };
const MAX_CLASSES = 256;

export function observeEnd(lifetimes: Lifetimes, kind: string, ms: number): Lifetimes {
  const before = lifetimes.ended[kind];
  if (before === undefined && Object.keys(lifetimes.ended).length >= MAX_CLASSES) return lifetimes;
  const counts = before === undefined ? new Array<number>(BUCKETS).fill(0) : [...before];
  const bucket = bucketOf(ms);
  counts[bucket] = (counts[bucket] ?? 0) + 1;
  return { ended: { ...lifetimes.ended, [kind]: counts } };
}

/** Halves what is known, so that what an earlier drain saw weighs less than what this one sees. */
export function fade(lifetimes: Lifetimes): Lifetimes {
  const halve = (counts: readonly number[]) => counts.map((n) => (n < 0.1 ? 0 : n / 2));
  return { ended: Object.fromEntries(Object.entries(lifetimes.ended).map(([kind, counts]) => [kind, halve(counts)])) };
}

export function mergeLifetimes(a: Lifetimes, b: Lifetimes): Lifetimes {
  const ended: Record<string, readonly number[]> = { ...a.ended };
  for (const [kind, counts] of Object.entries(b.ended)) {
    const before = ended[kind];
    if (before === undefined && Object.keys(ended).length >= MAX_CLASSES) continue;
    ended[kind] = counts.map((n, bucket) => n + (before?.[bucket] ?? 0));
  }
  return { ended };
}

/** One connection that is still open. */
export interface Open {
  readonly kind: string;
  /** How long it has lasted by the clock of its kind (since it opened, or since it was told), ms. */
  readonly forMs: number;
  /** Its clock has not begun: it begins so many ms from now. */
  readonly startsInMs?: number;
  /** It is ended by us in so many ms at the latest. */
  readonly atMostMs?: number;
}

/** Milliseconds from now. Absent: beyond 30 days. */
export interface Remaining {
  readonly likely?: number;
  readonly late?: number;
}

export interface EstimateResult {
  readonly each: readonly Remaining[];
  readonly all: Remaining;
  /** Ends that it stands on. */
  readonly observed: number;
}

/** When each of the open ones ends (as likely as not; in nine of ten cases), and when the last of them does. */
export function estimateEnds(open: readonly Open[], lifetimes: Lifetimes): EstimateResult {
  const laws = lawsOf(open, lifetimes);
  const groups = new Map<string, Group>();
  const each = open.map((one) => {
    const key = keyOf(one);
    const found = groups.get(key);
    if (found !== undefined) {
      found.count += 1;
      return found;
    }
    const group: Group = { one, law: laws.get(one.kind) as Law, count: 1 };
    groups.set(key, group);
    return group;
  });
  const all = [...groups.values()];
  const allEnded = (t: number) => all.reduce((p, group) => p * endedBy(group, t) ** group.count, 1);
  const remaining = (rising: (t: number) => number): Remaining => {
    const likely = search(rising, 0.5);
    const late = search(rising, 0.9);
    return { ...(likely !== undefined && { likely }), ...(late !== undefined && { late }) };
  };
  for (const group of all) group.remaining = remaining((t) => endedBy(group, t));
  return {
    each: each.map((group) => group.remaining as Remaining),
    all: open.length === 0 ? { likely: 0, late: 0 } : remaining(allEnded),
    observed: [...laws.keys()].reduce((n, kind) => n + (lifetimes.ended[kind] ?? []).reduce((a, b) => a + b, 0), 0),
  };
}

/** A class's hazard by bucket, as minus the logarithm of surviving it, and the sum of those before. */
interface Law {
  readonly of: readonly number[];
  readonly before: readonly number[];
}

/** Thousands of connections are a few hundred different ones: the same class, about the same duration. */
interface Group {
  readonly one: Open;
  readonly law: Law;
  count: number;
  remaining?: Remaining;
}

function keyOf({ kind, forMs, startsInMs, atMostMs }: Open): string {
  const coarse = (ms: number | undefined) => (ms === undefined ? '' : Math.round(ms / 100));
  return `${bucketOf(forMs)}/${coarse(startsInMs)}/${coarse(atMostMs)}/${kind}`;
}

function lawsOf(open: readonly Open[], lifetimes: Lifetimes): Map<string, Law> {
  const lasting = new Map<string, number[]>();
  for (const one of open) {
    const counts = lasting.get(one.kind) ?? new Array<number>(BUCKETS).fill(0);
    lasting.set(one.kind, counts);
    if (one.startsInMs !== undefined) continue;
    const bucket = bucketOf(one.forMs);
    counts[bucket] = (counts[bucket] as number) + 1;
  }
  return new Map([...lasting].map(([kind, counts]) => [kind, lawOf(lifetimes.ended[kind] ?? [], counts)]));
}

function lawOf(ended: readonly number[], lasting: readonly number[]): Law {
  const of = new Array<number>(BUCKETS).fill(0);
  let reached = 0;
  for (let b = BUCKETS - 1; b >= 0; b -= 1) {
    reached += ended[b] ?? 0;
    const hazard = ((ended[b] ?? 0) + PRIOR * PRIOR_HAZARD) / (reached + PRIOR);
    of[b] = -Math.log(1 - Math.min(0.999, hazard));
    // Those that are still within a bucket did not get through it yet: they count for the ones before.
    reached += lasting[b] ?? 0;
  }
  let sum = 0;
  const before = of.map((one) => {
    sum += one;
    return sum - one;
  });
  return { of, before };
}

/** Probability that it has ended `t` ms from now. */
function endedBy({ one, law }: Group, t: number): number {
  if (one.atMostMs !== undefined && t >= one.atMostMs) return 1;
  const from = Math.max(one.forMs, FIRST_MS);
  const to = from + Math.max(0, t - (one.startsInMs ?? 0));
  return 1 - Math.exp(hazardUntil(law, from) - hazardUntil(law, to));
}

/** The hazard passed by so many ms. Within a bucket it is even by the logarithm. */
function hazardUntil({ of, before }: Law, ms: number): number {
  const at = Math.log(ms / FIRST_MS) / LOG_RATIO;
  const b = Math.min(BUCKETS - 1, Math.floor(at));
  return (before[b] as number) + (of[b] as number) * (at - b);
}

/** The first moment at which a rising function reaches `q`, to within 1 %. */
function search(rising: (t: number) => number, q: number): number | undefined {
  if (rising(HORIZON_MS) < q) return undefined;
  let low = 0;
  let high = HORIZON_MS;
  while (high - low > Math.max(10, high * 0.01)) {
    const middle = low === 0 && high > 20 ? Math.max(10, Math.sqrt(10 * high)) : (low + high) / 2;
    if (rising(middle) >= q) high = middle;
    else low = middle;
  }
  return Math.round(high);
}

function bucketOf(ms: number): number {
  if (!(ms > FIRST_MS)) return 0;
  return Math.min(BUCKETS - 1, Math.floor(Math.log(ms / FIRST_MS) / LOG_RATIO + 1e-9));
}
