/**
 * When connections will end, from how long others took. Durations fall into buckets of a constant ratio; each class of
 * connections has a hazard per bucket (Kaplan and Meier: what ended in it, of all that reached it, those still open
 * counted as long as they are). A bucket that nothing is known of has the hazard of a Pareto law of exponent 1: what has
 * lasted for t lasts as likely as not for another t. So the first word is the connection's age, and what is observed
 * takes its place.
 */
const FIRST_MS = 50;
const RATIO = Math.SQRT2;
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
  const hazards = new Map<string, readonly number[]>();
  for (const { kind } of open) if (!hazards.has(kind)) hazards.set(kind, hazardsOf(kind, open, lifetimes));
  const laws = open.map((one) => ({ one, hazards: hazards.get(one.kind) as readonly number[] }));
  const quantile = (law: Law, q: number) => search((t) => endedBy(law, t), q);
  const groups = grouped(laws);
  const allEnded = (t: number) => groups.reduce((p, { law, count }) => p * endedBy(law, t) ** count, 1);
  const remaining = (likely: number | undefined, late: number | undefined): Remaining => ({
    ...(likely !== undefined && { likely }),
    ...(late !== undefined && { late }),
  });
  const known = new Map<string, Remaining>();
  return {
    each: laws.map((law) => {
      const key = keyOf(law.one);
      const found = known.get(key) ?? remaining(quantile(law, 0.5), quantile(law, 0.9));
      known.set(key, found);
      return found;
    }),
    all: open.length === 0 ? { likely: 0, late: 0 } : remaining(search(allEnded, 0.5), search(allEnded, 0.9)),
    observed: [...hazards.keys()].reduce((n, kind) => n + (lifetimes.ended[kind] ?? []).reduce((a, b) => a + b, 0), 0),
  };
}

interface Law {
  readonly one: Open;
  readonly hazards: readonly number[];
}

/** Thousands of connections are a few hundred different ones: the same class, about the same duration. */
function keyOf({ kind, forMs, startsInMs, atMostMs }: Open): string {
  const coarse = (ms: number | undefined) => (ms === undefined ? '' : Math.round(ms / 100));
  return `${bucketOf(forMs)}/${coarse(startsInMs)}/${coarse(atMostMs)}/${kind}`;
}

function grouped(laws: readonly Law[]): { readonly law: Law; readonly count: number }[] {
  const groups = new Map<string, { law: Law; count: number }>();
  for (const law of laws) {
    const key = keyOf(law.one);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { law, count: 1 });
    else group.count += 1;
  }
  return [...groups.values()];
}

function hazardsOf(kind: string, open: readonly Open[], lifetimes: Lifetimes): readonly number[] {
  const ended = lifetimes.ended[kind] ?? [];
  const reached = new Array<number>(BUCKETS).fill(0);
  for (let b = 0; b < BUCKETS; b += 1) {
    for (let later = b; later < BUCKETS; later += 1) reached[b] = (reached[b] as number) + (ended[later] ?? 0);
  }
  for (const one of open) {
    if (one.kind !== kind || one.startsInMs !== undefined) continue;
    // Those that are still within a bucket did not get through it yet: they count for the ones before.
    for (let b = 0; b < bucketOf(one.forMs); b += 1) reached[b] = (reached[b] as number) + 1;
  }
  return reached.map((n, b) => ((ended[b] ?? 0) + PRIOR * PRIOR_HAZARD) / (n + PRIOR));
}

/** Probability that it has ended `t` ms from now. */
function endedBy({ one, hazards }: Law, t: number): number {
  if (one.atMostMs !== undefined && t >= one.atMostMs) return 1;
  const from = Math.max(one.forMs, FIRST_MS);
  const to = from + Math.max(0, t - (one.startsInMs ?? 0));
  let survival = 1;
  for (let b = bucketOf(from); b <= bucketOf(to); b += 1) {
    const begin = Math.max(from, b === 0 ? 0 : FIRST_MS * RATIO ** b);
    const end = Math.min(to, FIRST_MS * RATIO ** (b + 1));
    // Of the bucket the part that lies between, by the logarithm, for there the hazard is even.
    const part = b === BUCKETS - 1 ? 1 : Math.max(0, Math.log(end / Math.max(begin, FIRST_MS)) / Math.log(RATIO));
    survival *= (1 - Math.min(0.999, hazards[b] ?? PRIOR_HAZARD)) ** Math.min(1, part);
  }
  return 1 - survival;
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
  return Math.min(BUCKETS - 1, Math.floor(Math.log(ms / FIRST_MS) / Math.log(RATIO) + 1e-9));
}
