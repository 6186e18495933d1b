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

it('one whose protection ends is not expected to last longer', () => {
  const forecast = new Forecast(join(folder, 'none.json'), () => DEFAULT_POLICY);
  const { estimate } = forecast.look([held('1', { until: 3_600_500 })], 0, 3_600_000);
  expect(estimate.endsLate).toBeLessThanOrEqual(3_600_520);
});
