import type { Estimate, HeldConnection } from '@sluice/contract';
import { formatSpan } from '../lib/time.ts';

/** `in about 12s, 40s at most likely`; `-` where nothing is known. Times are epoch milliseconds. */
export function endsText({ endsAt, endsLate }: { endsAt?: number; endsLate?: number }, now: number): string {
  if (endsAt === undefined) return '-';
  const about = `in about ${formatSpan(Math.max(0, endsAt - now))}`;
  return endsLate === undefined ? about : `${about}, ${formatSpan(Math.max(0, endsLate - now))} at most likely`;
}

const RELEASED: Record<NonNullable<HeldConnection['released']>, string> = {
  policy: 'by policy',
  'protection-over': 'protection over',
  deadline: 'deadline',
  memory: 'memory',
};

/** Whether it is waited for, and if it holds something and is not, why: `yes`, `no`, `no: memory`. */
export function waitedText(one: Pick<HeldConnection, 'protected' | 'released'>): string {
  if (one.protected) return 'yes';
  return one.released === undefined ? 'no' : `no: ${RELEASED[one.released] ?? one.released}`;
}

/** The whole drain's end, and what the estimate stands on. */
export function estimateText(estimate: Estimate, now: number): string {
  const { endsAt, observed } = estimate;
  const stands =
    observed < 1
      ? 'no connection was seen to end yet, so their ages alone speak'
      : `by ${Math.round(observed)} ends of connections that were seen`;
  if (endsAt === undefined) return `The drain may never end by itself (${stands}).`;
  return `The drain ends ${endsText(estimate, now)} (${stands}).`;
}
