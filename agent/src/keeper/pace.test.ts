import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Connection, DEFAULT_POLICY, type DrainOrder, type DrainPolicy } from '@sluice/contract';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { DrainWatch } from '../epochs/drain-watch.ts';
import type { Epoch } from '../epochs/epoch.ts';
import type { KeeperContext } from './context.ts';
import { startPacing } from './pace.ts';

const orderOf = (policy: Partial<DrainPolicy>): DrainOrder => ({
  v: 1,
  upgradeId: 'u',
  epoch: 1,
  version: 1,
  action: 'drain',
  policy: { ...DEFAULT_POLICY, ...policy },
  cutoffAgeMs: 0,
  issuedAt: 0,
});
const alone = orderOf({ rules: [{ name: 'probes', match: { listeners: ['p'] }, nudge: false }] });
const connection: Connection = {
  epoch: 1,
  id: '7',
  peer: '10.0.0.1:1',
  local: '10.0.0.1:80',
  listener: 'in',
  protocol: 'http1',
  openedAt: Date.now() - 60_000,
};
const probe: Connection = { ...connection, id: '8', listener: 'p' };

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pace-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** An old epoch as far as pacing looks at it; the filter's list comes as `listed` says, one answer a question. */
function epoch(order: DrainOrder, listed: boolean[]) {
  const marked: string[] = [];
  const watch = {
    order,
    awaitsPacer: order,
    pacer: undefined,
    verdict: undefined,
    untilListed: async () => listed.shift() ?? false,
    poke: () => {},
  } as unknown as DrainWatch;
  const old = {
    number: 1,
    ending: false,
    meta: { version: '1.40.0', wasm: true, leave: true, oldConnections: 1, startedAt: 0 },
    table: { connections: () => [connection, probe], marks: true, mark: (ids: string[]) => marked.push(...ids) },
    admin: { get: async () => Promise.reject(new Error('no admin')) },
    folder: { pressure: join(folder, 'pressure') },
    drain: watch,
  } as unknown as Epoch;
  const context = {
    now: Date.now,
    log: () => {},
    registry: { serving: () => undefined },
    signal: new AbortController().signal,
  } as unknown as KeeperContext;
  return { old, watch, context, marked, pressure: () => Number(readFileSync(old.folder.pressure, 'utf8')) };
}

it('policy leaves some alone: a list that is late is waited for, and then the others are told', async () => {
  const { old, watch, context, marked } = epoch(alone, [false, false, true]);
  await startPacing(context, old, alone, false);
  watch.pacer?.stop();
  expect(marked).toEqual(['7']);
});

it.each([
  ['by age', orderOf({})],
  ['all at once', orderOf({ pacing: { ...DEFAULT_POLICY.pacing, perSecond: 0 } })],
  ['but some', alone],
  ['the idlest first', orderOf({ pacing: { ...DEFAULT_POLICY.pacing, order: 'idlest' } })],
])('policy tells %s: of an Envoy that nobody has looked at nobody is told, and it is said why', async (_, order) => {
  const { old, watch, context, marked, pressure } = epoch(order, [true]);
  (old.meta as { version: string }).version = '1.41.0';
  await startPacing(context, old, order, false);
  expect(pressure()).toBe(0);
  expect(marked).toEqual([]);
  expect(watch.pacer?.progress()).toMatchObject({ told: 0, left: 0, none: expect.stringContaining('Envoy 1.41.0') });
  watch.pacer?.stop();
  expect(pressure()).toBe(0);
});

it('a second order with another policy: the pacer of the first one stops at once, and its told ones stay told', async () => {
  const first = orderOf({ pacing: { ...DEFAULT_POLICY.pacing, perSecond: 0 } });
  const { old, watch, context, pressure } = epoch(first, [true]);
  await startPacing(context, old, first, false);
  const before = watch.pacer;
  const told = before?.annotate(connection).toldAt;
  expect(told).toBeGreaterThan(0);
  expect(pressure()).toBeGreaterThan(0.9);
  watch.order = alone;
  watch.awaitsPacer = alone;
  await startPacing(context, old, alone, true);
  expect(watch.pacer).not.toBe(before);
  expect(watch.pacer?.annotate(connection).toldAt).toBe(told);
  expect(pressure()).toBe(0);
  watch.pacer?.stop();
});

it('an order that came meanwhile has its own pacer', async () => {
  const { old, watch, context } = epoch(alone, [true]);
  const starting = startPacing(context, old, alone, false);
  watch.order = orderOf({});
  watch.awaitsPacer = watch.order;
  await starting;
  expect(watch.pacer).toBeUndefined();
});

it('a share of the rate that came while the list was awaited is in force', async () => {
  const { old, watch, context } = epoch(alone, [false, false, true]);
  const starting = startPacing(context, old, alone, false);
  watch.order = { ...alone, version: 2, pace: { perSecond: 3 } };
  await starting;
  watch.pacer?.stop();
  expect(watch.pacer?.progress().perSecond).toBe(3);
});
