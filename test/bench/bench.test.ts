import { expect, it } from 'vitest';
import { holds, median, showCheck } from './bench.ts';

it('takes the middle, or the mean of the two in the middle', () => {
  expect(median([9, 1, 5])).toBe(5);
  expect(median([4, 1, 2, 9])).toBe(3);
  expect(() => median([])).toThrow('no values');
});

it('holds a value to its bound, and what is no number to none', () => {
  expect(holds({ name: 'a', value: 5, atMost: 5 })).toBe(true);
  expect(holds({ name: 'a', value: 5, atLeast: 6 })).toBe(false);
  expect(holds({ name: 'a', value: Number.NaN, atMost: 5 })).toBe(false);
  expect(showCheck({ name: 'delay, ms', value: 900, atMost: 500 })).toBe('FAIL  delay, ms: 900 (at most 500)');
});
