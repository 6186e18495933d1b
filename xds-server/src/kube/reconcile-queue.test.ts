import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { ReconcileQueue } from './reconcile-queue.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function rig(work: (key: string) => Promise<void> = async () => undefined, gapMs = 100) {
  const done: [string, number][] = [];
  const failed: number[] = [];
  const end = new AbortController();
  const began = Date.now();
  const queue = new ReconcileQueue({
    work: async (key) => {
      done.push([key, Date.now() - began]);
      await work(key);
    },
    onError: (_, __, waitMs) => failed.push(waitMs),
    gapMs: () => gapMs,
    signal: end.signal,
  });
  return { queue, done, failed, end };
}

it('looks at a key once for all that comes within its gap', async () => {
  const { queue, done } = rig();
  for (let n = 0; n < 10; n++) queue.add('a');
  queue.add('b');
  await vi.advanceTimersByTimeAsync(1);
  for (let n = 0; n < 10; n++) queue.add('a');
  await vi.advanceTimersByTimeAsync(1_000);
  expect(done).toEqual([
    ['a', 0],
    ['b', 0],
    ['a', 100],
  ]);
});

it('never works on a key twice at once, and does again what came meanwhile', async () => {
  let busy = 0;
  const { queue, done } = rig(async () => {
    expect(++busy).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 500));
    busy--;
  });
  queue.add('a');
  await vi.advanceTimersByTimeAsync(200);
  queue.add('a');
  await vi.advanceTimersByTimeAsync(2_000);
  expect(done).toHaveLength(2);
  expect(done[1]?.[1]).toBeGreaterThanOrEqual(500);
});

it('tries again later each time, and sooner when something changed', async () => {
  let fails = true;
  const { queue, done, failed } = rig(async () => {
    if (fails) throw new Error('away');
  });
  queue.add('a');
  await vi.advanceTimersByTimeAsync(5_000);
  expect(failed.length).toBeGreaterThan(2);
  expect(failed.at(-1)).toBeGreaterThan(failed[0] as number);
  fails = false;
  const before = done.length;
  queue.add('a');
  await vi.advanceTimersByTimeAsync(150);
  expect(done.length).toBe(before + 1);
});

it('ends with its signal, and forgets what is gone', async () => {
  const { queue, done, end } = rig();
  queue.add('a', 50);
  queue.forget('a');
  queue.add('b', 50);
  end.abort();
  queue.add('c');
  await vi.advanceTimersByTimeAsync(1_000);
  expect(done).toEqual([]);
});
