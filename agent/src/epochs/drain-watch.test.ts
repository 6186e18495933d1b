import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Connection, DEFAULT_POLICY, type DrainOrder, type Estimate, type Witness } from '@sluice/contract';
import { expect, it } from 'vitest';
import { DrainWatch } from './drain-watch.ts';
import { Forecast } from './forecast.ts';

const NOW = 1_000_000;
const session: Connection = {
  epoch: 1,
  id: '1',
  peer: 'p:1',
  local: 'l:1',
  listener: 'in',
  protocol: 'tcp',
  openedAt: NOW - 60_000,
};
const order = (action: DrainOrder['action']): DrainOrder => ({
  v: 1,
  upgradeId: 'u',
  epoch: 1,
  version: 1,
  action,
  policy: DEFAULT_POLICY,
  cutoffAgeMs: 0,
  issuedAt: NOW,
});

it('the first word on each connection is by the order, on the drain when it is known who is told when', async () => {
  const forecast = new Forecast(join(tmpdir(), 'no-such-lifetimes.json'), () => DEFAULT_POLICY);
  const said: Estimate[] = [];
  const clock = { now: NOW };
  const witness = (name: Witness['name']): Witness => ({ name, open: 1, at: clock.now });
  const watch = new DrainWatch({
    epoch: 1,
    startedAt: NOW,
    policy: DEFAULT_POLICY,
    sources: {
      kernel: async () => witness('kernel'),
      admin: async () => ({ witness: witness('admin') }),
      filter: () => ({ witness: witness('filter'), connections: [session], complete: true }),
      close: () => {},
    },
    onVerdict: () => {},
    onEstimate: (estimate) => said.push(estimate),
    forecast,
    log: () => {},
    now: () => clock.now,
  });
  try {
    await watch.judge();
    expect(forecast.first('1')).toBeUndefined();
    clock.now += 100;
    watch.applied(order('drain'), clock.now);
    watch.awaitsPacer = order('drain');
    watch.foretell();
    expect(forecast.first('1')).toMatchObject({ at: NOW + 100, endsAt: expect.any(Number) });
    await watch.judge();
    expect(said).toEqual([]);
    watch.awaitsPacer = undefined;
    clock.now += 100;
    await watch.judge();
    await watch.judge();
    expect(said.map(({ at }) => at)).toEqual([NOW + 200]);
    expect(watch.deeds.expected?.('1')?.at).toBe(NOW + 100);
    // A drain that is taken back was not estimated.
    watch.applied(order('stop'), clock.now);
    expect(forecast.first('1')).toBeUndefined();
  } finally {
    watch.stop();
  }
});
