/** What a bench claims: a measured value and the bound it is held to. */
export interface Check {
  readonly name: string;
  readonly value: number;
  readonly atMost?: number;
  readonly atLeast?: number;
}

export interface BenchResult {
  readonly bench: string;
  readonly checks: readonly Check[];
  /** The measurements that the values were made of. */
  readonly raw: unknown;
}

/** Measures for real: whole processes, real Envoys. `say` tells progress. */
export type Bench = (say: (text: string) => void) => Promise<Omit<BenchResult, 'bench'>>;

export function holds({ value, atMost, atLeast }: Check): boolean {
  return value <= (atMost ?? Infinity) && value >= (atLeast ?? -Infinity);
}

export function showCheck(check: Check): string {
  const bound = check.atMost !== undefined ? `at most ${check.atMost}` : `at least ${check.atLeast}`;
  return `${holds(check) ? 'ok  ' : 'FAIL'}  ${check.name}: ${check.value} (${bound})`;
}

/** @throws RangeError when there are no values: nothing measured is no success */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('no values were measured');
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const [low = 0, high = 0] = [sorted[Math.ceil(sorted.length / 2) - 1], sorted[middle]];
  return (low + high) / 2;
}
