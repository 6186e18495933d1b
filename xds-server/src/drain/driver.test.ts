import { SluiceError } from '@sluice/contract';
import { afterEach, expect, it, vi } from 'vitest';
import type { Agents } from '../link/agents.ts';
import { SILENT } from '../log.ts';
import { MemoryStore } from '../store/memory.ts';
import { fresh } from '../testing/story.ts';
import type { OrderSink } from './commands.ts';
import { Driver } from './driver.ts';
import { DEFAULT_BOUNDS } from './state.ts';

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
