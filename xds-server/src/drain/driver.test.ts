import { type EpochStatus, SluiceError } from '@sluice/contract';
import { afterEach, expect, it, vi } from 'vitest';
import { Agents } from '../link/agents.ts';
import { SILENT } from '../log.ts';
import { MemoryStore } from '../store/memory.ts';
import { fresh, judged, T0 } from '../testing/story.ts';
import type { OrderSink } from './commands.ts';
import { Driver } from './driver.ts';
import { hear } from './hear.ts';
import { DEFAULT_BOUNDS, type UpgradeEvent } from './state.ts';

afterEach(() => vi.useRealTimers());

/** Nobody is linked. */
const agents = {
  podUid: () => undefined,
  choose: () => undefined,
  connectedSlots: () => new Set(),
} as unknown as Agents;

it('a step that can not be written is made later, and not never', async () => {
  vi.useFakeTimers();
  const store = new MemoryStore();
  const { updateUpgrade } = store;
  let tries = 0;
  store.updateUpgrade = (...args) =>
    ++tries === 1 ? Promise.reject(new SluiceError('INTERNAL', 'a fault')) : updateUpgrade.apply(store, args);
  const driver = new Driver({ store, agents, orders: {} as OrderSink, log: SILENT });
  const { proxy, target, policy } = fresh();
  const { id } = await driver.create({ proxy, target, policy });
  await vi.advanceTimersByTimeAsync(DEFAULT_BOUNDS.idle);
  expect((await store.upgrade(id))?.state.phase).toBe('Idle');
  await vi.advanceTimersByTimeAsync(10_000);
  expect(tries).toBe(2);
  expect((await store.upgrade(id))?.state.phase).toBe('Failed');
  await driver.close();
});

it('a verdict that comes while its drain is being taken over counts, and an older one after it does not', async () => {
  const store = new MemoryStore();
  const { insertUpgrade } = store;
  const { promise: go, resolve } = Promise.withResolvers<void>();
  store.insertUpgrade = async (...args) => {
    await go;
    return insertUpgrade.apply(store, args);
  };
  const known = new Agents();
  const verdict = (safe: boolean, at: number) =>
    (judged(safe, at) as Extract<UpgradeEvent, { type: 'verdict' }>).verdict;
  const old = { epoch: 0, slot: '1', state: 'draining' as const, version: '1.38.3', pid: 1, startedAt: 1 };
  const epochs = [{ ...old, upgradeId: 'u', verdict: verdict(false, T0) }];
  known.restore({ proxy: 'p', slot: '1', agentVersion: '0', versions: [], epochs, seenAt: 1 });
  const orders: OrderSink = { set: () => undefined, clear: () => undefined };
  const driver = new Driver({ store, agents: known, orders, log: SILENT });
  const adopted = driver.adoptions.draining('p', '1', epochs[0] as EpochStatus);
  const said = { type: 'verdict' as const, upgradeId: 'u', epoch: 0, verdict: verdict(true, T0 + 1) };
  const heard = hear({ driver, store }, 'p', '1', said);
  resolve();
  await Promise.all([adopted, heard]);
  expect((await store.upgrade('u'))?.state).toMatchObject({ phase: 'Resetting', verdict: { safe: true } });
  await driver.close();
});
