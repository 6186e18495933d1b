/** What the new epoch bears, between two looks at it. Rates are a second; what is not known says nothing. */
export interface Load {
  /** Between the two looks. */
  readonly seconds: number;
  /** Share of its workers' time that it is busy, 0 to 1. */
  readonly busy?: number;
  /** Connections and requests refused or failed: for want of room, or of an upstream that could be connected to. */
  readonly refused?: number;
  /** New connections. */
  readonly arrivals?: number;
  /** New connections of TLS listeners; of them, handshakes that failed, and those that were neither done nor failed. */
  readonly opened?: number;
  readonly failed?: number;
  readonly unfinished?: number;
  /** Nine of ten requests took at most so long, ms. */
  readonly latencyMs?: number;
  /** Nine of ten connections to upstreams were there after so long, ms. */
  readonly connectMs?: number;
}

/** What is no strain, of each: as it was before the drain. */
export interface Usual {
  readonly refused?: number;
  readonly arrivals?: number;
  readonly failed?: number;
  readonly unfinished?: number;
  readonly latencyMs?: number;
  readonly connectMs?: number;
}

export type Measure = keyof Usual;
export const MEASURES: readonly Measure[] = ['refused', 'arrivals', 'failed', 'unfinished', 'latencyMs', 'connectMs'];

/** What is usual follows with this time constant: of a lasting change half counts as usual after 83 s. */
const FOLLOW_S = 120;

/**
 * What is usual, one look later. Where the drain is at its slowest and the strain has stayed, the strain is not the drain's
 * doing: the usual follows it slowly, or the drain would go on at one a second for ever (a peak hour, a slower version).
 * At any faster rate it never rises, so a drain can not get itself used to the harm it does. It falls back as
 * slowly, to what it was before the drain at the lowest.
 */
export function follow(base: Usual, usual: Usual, load: Load, lasting: boolean): Usual {
  const part = 1 - Math.exp(-load.seconds / FOLLOW_S);
  const next: { [key in Measure]?: number } = {};
  for (const key of MEASURES) {
    const was = usual[key] ?? startOf(key);
    const now = load[key];
    if (was === undefined) continue;
    const floor = base[key] ?? startOf(key) ?? 0;
    const towards = now === undefined ? floor : Math.max(floor, now);
    next[key] = towards > was && !lasting ? was : was + (towards - was) * part;
  }
  return next;
}

/** What is counted is usually not there at all; a time that nobody has told is not known. */
export function startOf(measure: Measure): number | undefined {
  return measure === 'latencyMs' || measure === 'connectMs' || measure === 'arrivals' ? undefined : 0;
}
