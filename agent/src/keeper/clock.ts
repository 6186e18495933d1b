import type { Report, ReportRecord } from '@sluice/contract';

/** The clock of the drains: epoch milliseconds. */
export interface DrainClock {
  now(): number;
  /** A moment that was read from the wall clock of this machine, on this clock. */
  fromWall(wall: number): number;
}

/** Less than this is no step: the two clocks are read one after the other. */
const STEP_MS = 250;
/** A step is noticed with the next look at the clock, and reports are on their way for a moment. */
const NOTICED_MS = 2_000;

/**
 * The wall clock while nothing drains. While something does (`drains`) it goes on by the monotonic clock, which is
 * Envoy's own for the age of a connection: a wall clock that is set anew (settimeofday, a step of NTP) must not move the
 * cut-offs, graces and limits of a drain. The times of such a drain are told as if the clock had not been set.
 */
export function drainClock(
  drains: () => boolean,
  wall: () => number = Date.now,
  monotonic: () => number = () => performance.now(),
): DrainClock {
  let anchor = wall() - monotonic();
  /** How far this clock is from the wall's since the last step, and when that was noticed. */
  let step: { readonly by: number; readonly at: number } | undefined;
  const now = (): number => {
    const at = anchor + monotonic();
    const by = at - wall();
    if (!drains()) {
      anchor -= by;
      step = undefined;
      return Math.round(at - by);
    }
    if (Math.abs(by - (step?.by ?? 0)) >= STEP_MS) step = Math.abs(by) < STEP_MS ? undefined : { by, at };
    return Math.round(at);
  };
  return {
    now,
    fromWall(given) {
      const at = now();
      if (step === undefined) return given;
      const since = given + step.by;
      // From before the step, when the two clocks were one.
      if (since < step.at - NOTICED_MS || since > at + NOTICED_MS) return given;
      return Math.round(since);
    },
  };
}

/** A report of the filter, whose times are the wall clock's, on `clock`. */
export function onClock(report: Report, { fromWall }: DrainClock): Report {
  const record = (one: ReportRecord): ReportRecord => {
    const active = 'lastActivityAt' in one &&
      one.lastActivityAt !== undefined && { lastActivityAt: fromWall(one.lastActivityAt) };
    if (one.kind === 'open') return { ...one, openedAt: fromWall(one.openedAt), ...active };
    return { ...one, ...active };
  };
  return { ...report, now: fromWall(report.now), records: report.records.map(record) };
}
