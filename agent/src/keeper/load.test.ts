import { expect, it } from 'vitest';
import type { Epoch } from '../epochs/epoch.ts';
import { sampleBefore, usualOf } from './load.ts';

/** An epoch that has taken 1,000 connections more each time it is asked, by a clock that the test sets. */
function proxy() {
  const clock = { ms: 0 };
  let asked = 0;
  const now = () => clock.ms;
  const old = {
    process: { pid: process.pid },
    meta: { startedAt: 0, concurrency: 2 },
    admin: {
      get: async (path: string) => {
        if (!path.includes('cx_total')) return '';
        asked += 1;
        return `listener.in.downstream_cx_total: ${asked * 1_000}\n`;
      },
    },
    sampled: undefined,
  } as unknown as Epoch;
  return { clock, old, context: { now }, asked: () => asked };
}

it('a sample from the preflight stands for the start, so that a start of a tenth of a second is not all that is known', async () => {
  const { clock, old, context, asked } = proxy();
  clock.ms = 10_000;
  sampleBefore(context, old);
  const { reading } = old.sampled ?? {};
  await reading;
  clock.ms += 59_000;
  sampleBefore(context, old);
  expect([asked(), old.sampled?.reading]).toEqual([1, reading]);
});

it('one of a minute ago is taken anew: it would tell a mean in which a peak is not seen', async () => {
  const { clock, old, context } = proxy();
  clock.ms = 10_000;
  sampleBefore(context, old);
  await old.sampled?.reading;
  clock.ms += 60_000;
  sampleBefore(context, old);
  expect(await old.sampled?.reading).toMatchObject({ opened: 2_000 });
});

it('of an epoch too young nothing is noted, and the next one who means to replace it looks again', async () => {
  const { clock, old, context, asked } = proxy();
  clock.ms = 2_999;
  sampleBefore(context, old);
  expect(await old.sampled?.reading).toBeUndefined();
  expect([asked(), old.sampled]).toEqual([0, undefined]);
  expect(await usualOf(context, old)).toEqual({});
  clock.ms = 3_000;
  sampleBefore(context, old);
  expect(await old.sampled?.reading).toMatchObject({ opened: 2_000 });
});
