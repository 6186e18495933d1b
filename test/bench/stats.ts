/** Events in buckets of `bucketMs` from `from` on; those outside of the window are left out. */
export function buckets(times: readonly number[], from: number, windowMs: number, bucketMs = 1000): number[] {
  const counts = new Array<number>(Math.ceil(windowMs / bucketMs)).fill(0);
  for (const at of times) {
    if (at < from || at >= from + windowMs) continue;
    const index = Math.floor((at - from) / bucketMs);
    counts[index] = (counts[index] ?? 0) + 1;
  }
  return counts;
}

/** The fullest bucket beside the mean of all of them. NaN when nothing happened. */
export function peakToMean(counts: readonly number[]): { peak: number; mean: number; ratio: number } {
  const peak = Math.max(0, ...counts);
  const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  return { peak, mean, ratio: peak / mean };
}

/** The smallest value that at least the part `p` of all values does not exceed. @throws RangeError when there are none */
export function percentile(values: readonly number[], p: number): number {
  if (values.length === 0) throw new RangeError('no values were measured');
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * p) - 1)] ?? Number.NaN;
}

export function round(value: number, digits = 2): number {
  return Number(value.toFixed(digits));
}
