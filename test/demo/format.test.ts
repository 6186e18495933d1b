import { expect, it } from 'vitest';
import { bar, duration, fit, paint } from './format.ts';

it('cuts a line to its visible width and keeps its colours', () => {
  const line = `${paint(true).good('green')} and plain`;
  expect(fit(line, 7)).toBe('\x1b[32mgreen\x1b[0m a');
  expect(fit('short', 80)).toBe('short');
});

it('draws a share as a bar', () => {
  expect(bar(1, 2, 4)).toBe('██··');
  expect(bar(9, 2, 4)).toBe('████');
  expect(bar(0, 0, 4)).toBe('····');
});

it('says durations in a unit that fits', () => {
  expect([duration(90), duration(6_540), duration(95_000)]).toEqual(['90 ms', '6.5 s', '1 min 35 s']);
});
