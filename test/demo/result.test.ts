import type { UpgradeView } from '@sluice/contract';
import { describe, expect, it } from 'vitest';
import { goawayDelay, lastEnd, type Noted, oldConnections, upgradeResult, windowOf } from './result.ts';

const view = {
  from: '1.38.3',
  to: '1.40.0',
  method: 'hot-restart',
  drainStartedAt: 2_000,
  safeToResetAt: 9_050,
  resetAt: 9_060,
  connections: { old: 2, drained: 2, cut: [] },
} as unknown as UpgradeView;
const noted: Noted = {
  view,
  from: '1.38.3',
  to: '1.40.0',
  startedAt: 1_000,
  oldPorts: new Set([7, 8]),
  oldPortsAt: 2_010,
};
const at = (localPort: number, openedAt: number, endedAt?: number) => ({
  client: 'a',
  localPort,
  remotePort: 1,
  openedAt,
  ...(endedAt === undefined ? {} : { endedAt }),
});

describe('the end of the last old connection', () => {
  it('is the latest end of the connections that the old process held, by the clients clock', () => {
    expect(lastEnd(noted, [at(7, 500, 5_000), at(8, 600, 9_000), at(9, 1_600, 20_000)])).toBe(9_000);
  });

  it('does not mistake a port that is used again for the old connection', () => {
    expect(lastEnd(noted, [at(7, 500, 5_000), at(7, 6_000, 20_000), at(8, 100, 900), at(8, 1_000, 3_000)])).toBe(5_000);
    expect(oldConnections(noted, [at(9, 1_500, 20_000), at(9, 500, 1_900), at(9, 500, 2_005)])).toHaveLength(1);
  });

  it('is not known while one of them is open', () => {
    expect(lastEnd(noted, [at(7, 500)])).toBeUndefined();
  });

  it('ends the window one second later', () => {
    expect(windowOf(noted, [at(7, 500, 5_000)])).toEqual({ from: 1_000, to: 6_000 });
  });
});

describe('the delay of GOAWAY', () => {
  const idle = (openedAt: number, goawayAt?: number) => ({
    localPort: 7,
    openedAt,
    ...(goawayAt === undefined ? {} : { goawayAt, endedAt: goawayAt + 5 }),
  });

  it('is the slowest of the idle clients of the old process', () => {
    expect(goawayDelay(noted, [idle(500, 2_080), idle(500, 2_200), idle(2_090, 30_000), idle(10, 900)])).toBe(200);
  });

  it('is null when one of them never got any', () => {
    expect(goawayDelay(noted, [idle(500, 2_080), idle(500)])).toBeNull();
  });
});

it('makes the record of an upgrade with its counts by client', () => {
  const counts = [
    { name: 'a', total: 10, failed: 0, refusedBeforeSent: 1, failures: [] },
    { name: 'b', total: 5, failed: 2, refusedBeforeSent: 0, failures: [] },
  ];
  expect(upgradeResult(noted, [at(7, 500, 9_000)], [], counts)).toEqual({
    from: '1.38.3',
    to: '1.40.0',
    method: 'hot-restart',
    requests: {
      total: 15,
      failed: 2,
      refusedBeforeSent: 1,
      byProtocol: { a: { total: 10, failed: 0 }, b: { total: 5, failed: 2 } },
    },
    connections: { old: 1, drained: 1, cut: 0 },
    drainStartedAt: 2_000,
    lastOldConnectionEndedAt: 9_000,
    safeToResetAt: 9_050,
    resetAt: 9_060,
    goawayIdleMs: null,
  });
});
