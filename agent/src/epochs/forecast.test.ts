import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Connection, DEFAULT_POLICY, type EndedConnection, type HeldConnection } from '@sluice/contract';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Forecast } from './forecast.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'forecast-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const session = (id: string): Connection => ({
  epoch: 1,
  id,
  peer: 'p:1',
  local: 'l:1',
  listener: 'in',
  protocol: 'tcp',
  openedAt: 0,
});
const held = (id: string, more: Partial<HeldConnection> = {}): HeldConnection => ({
  connection: session(id),
  protected: true,
  reason: 'tcp',
  holds: true,
  rule: 'default',
  ...more,
});
const ended = (count: number): EndedConnection[] =>
  Array.from({ length: count }, (_, n) => ({
    connection: session(String(n)),
    at: 10_000,
    how: 'left',
    lever: 'wait',
    reason: 'tcp',
    rule: 'default',
  }));

it('of two drains at once neither forgets what the other one saw', () => {
  const file = join(folder, 'lifetimes.json');
  const make = () => new Forecast(file, () => DEFAULT_POLICY);
  const [first, second] = [make(), make()];
  first.ended(ended(8));
  second.ended(ended(8));
  first.save();
  second.save();
  // Those of the first are one drain older: they count half, and half again when the next one begins.
  expect(make().look([held('1')], 0, 1_000).estimate.observed).toBe(6);
});

it('one of an Envoy that nobody has looked at leaves when it likes: no end after a turn is promised', () => {
  const http2 = { connection: { ...session('1'), protocol: 'http2' }, reason: 'no-lever' } as const;
  const made = (envoy: string) => {
    const forecast = new Forecast(join(folder, 'none.json'), () => DEFAULT_POLICY, envoy);
    const told = { ...http2.connection, toldAt: 9_900 };
    forecast.ended(ended(8).map((one) => ({ ...one, connection: told })));
    return forecast.look([held('1', { ...http2, connection: { ...told, openedAt: 9_000 } })], 0, 10_000).estimate;
  };
  const [known, unknown] = [made('1.40.0'), made('1.41.0')];
  expect(known.endsAt).toBeLessThan(11_000);
  expect(unknown.endsAt).toBeGreaterThan(11_000);
});

it('one whose protection ends is not expected to last longer', () => {
  const forecast = new Forecast(join(folder, 'none.json'), () => DEFAULT_POLICY);
  const { estimate } = forecast.look([held('1', { until: 3_600_500 })], 0, 3_600_000);
  expect(estimate.endsLate).toBeLessThanOrEqual(3_600_520);
});

it('what it says first of a connection is kept until that ends, from when it counts', () => {
  const forecast = new Forecast(join(folder, 'none.json'), () => DEFAULT_POLICY);
  forecast.look([held('1')], 0, 1_000);
  expect(forecast.first('1')).toBeUndefined();
  const { ends } = forecast.look([held('1')], 0, 2_000, true);
  const { endsAt, endsLate } = ends(held('1'));
  forecast.look([held('1'), held('2')], 0, 9_000, true);
  expect(forecast.first('1')).toEqual({ at: 2_000, endsAt, endsLate });
  expect(forecast.first('2')?.at).toBe(9_000);
  forecast.ended([{ ...(ended(1)[0] as EndedConnection), connection: session('1') }]);
  expect(forecast.first('1')).toBeUndefined();
  forecast.forget();
  expect(forecast.first('2')).toBeUndefined();
});
