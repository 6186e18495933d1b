import { DEFAULT_POLICY, mergePolicy } from '@sluice/contract';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { Lingering } from '../epochs/cost.ts';
import type { FrontContext } from './front.ts';
import { SlotBudget } from './slot-budget.ts';

const MiB = 1024 * 1024;
beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** One draining epoch of 60 MiB. */
function rig(budgetMiB: number) {
  const drain = {
    policy: mergePolicy(DEFAULT_POLICY, { memory: { budgetMiB } }),
    verdict: { cost: { privateBytes: 60 * MiB }, holding: 1 },
    orderAppliedAt: 0,
    overBudget: false,
    poke: () => {},
  };
  const registry = { all: () => [{ number: 1, drain }] };
  return { drain, context: { registry, now: () => 10_000, log: () => {} } as unknown as FrontContext };
}

const peer = (mib: number): Lingering => ({
  epoch: 2,
  privateBytes: mib * MiB,
  holding: 0,
  budgetMiB: 0,
  lingers: true,
});

it('weighs with what the peer holds, asked again after 5 s and not with each verdict', async () => {
  const { drain, context } = rig(100);
  const ask = vi.fn(async () => [peer(60)]);
  const budget = new SlotBudget(context, ask);
  budget.weigh();
  budget.weigh();
  expect(drain.overBudget).toBe(false);
  await vi.advanceTimersByTimeAsync(0);
  expect(drain.overBudget).toBe(true);
  for (let i = 0; i < 5; i++) budget.weigh();
  expect(ask).toHaveBeenCalledTimes(1);
  ask.mockResolvedValue([]);
  await vi.advanceTimersByTimeAsync(5_000);
  expect(ask).toHaveBeenCalledTimes(2);
  expect(drain.overBudget).toBe(false);
  budget.stop();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(ask).toHaveBeenCalledTimes(2);
});

it('a peer that does not answer counts as nothing', async () => {
  const { drain, context } = rig(50);
  new SlotBudget(context, () => Promise.reject(new Error('silent'))).weigh();
  await vi.advanceTimersByTimeAsync(0);
  expect(drain.overBudget).toBe(true);
});

it('without slots, or without a budget here, nobody is asked', () => {
  const alone = rig(50);
  new SlotBudget(alone.context, undefined).weigh();
  expect(alone.drain.overBudget).toBe(true);
  const ask = vi.fn(async () => [peer(600)]);
  const { drain, context } = rig(0);
  new SlotBudget(context, ask).weigh();
  expect([drain.overBudget, ask.mock.calls.length]).toEqual([false, 0]);
});
