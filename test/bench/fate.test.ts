import { expect, it } from 'vitest';
import type { ConnectionRecord } from './clients/crowd.ts';
import { fateOf } from './fate.ts';

const record = (change: Partial<ConnectionRecord>): ConnectionRecord => ({
  kind: 'tcp',
  localPort: 1,
  openedAt: 0,
  cut: false,
  ...change,
});

it('takes the end of the last old connection, and no other one', () => {
  const records = [
    record({ endedAt: 500, freeAt: 400 }),
    record({ localPort: 2, endedAt: 900, freeAt: 800 }),
    // Of the new epoch, and one that used port 2 before.
    record({ localPort: 3, openedAt: 200 }),
    record({ localPort: 2, endedAt: 50, cut: true }),
  ];
  expect(fateOf(records, new Set([1, 2]), 100, 1_500)).toEqual({ old: 2, trueEnd: 900, cut: 0, leftAtReset: 0 });
});

it('a connection that the reset ended was free since its last request, or is cut', () => {
  const records = [
    record({ endedAt: 60_003, freeAt: 150 }),
    record({ localPort: 2, endedAt: 60_001, freeAt: 60_001, cut: true }),
  ];
  expect(fateOf(records, new Set([1]), 100, 60_000)).toEqual({ old: 1, trueEnd: 150, cut: 0, leftAtReset: 1 });
  expect(fateOf(records, new Set([1, 2]), 100, 60_000)).toEqual({ old: 2, trueEnd: 60_000, cut: 1, leftAtReset: 2 });
});
