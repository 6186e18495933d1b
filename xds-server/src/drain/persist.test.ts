import { SluiceError } from '@sluice/contract';
import { expect, it } from 'vitest';
import { SILENT } from '../log.ts';
import { PlainRollouts } from '../replicas/plain-rollouts.ts';
import type { Rollouts } from '../rollout/index.ts';
import { fresh } from '../testing/story.ts';
import { untilThere } from './persist.ts';
import { propose } from './propose.ts';

const away = () => new SluiceError('KUBE_AWAY', 'the API server is away');

it('a store that is away is not asked any more once nobody waits for it', async () => {
  const stop = new AbortController();
  let asked = 0;
  const ask = async () => {
    asked++;
    setImmediate(() => stop.abort());
    throw away();
  };
  await expect(untilThere(ask, SILENT, stop.signal)).rejects.toMatchObject({ code: 'KUBE_AWAY' });
  expect(asked).toBe(1);
});

it('rollouts do not begin in a term that is over: nobody would end them', async () => {
  const elsewhere = () => new SluiceError('NOT_LEADER', 'another one');
  const rollouts = new PlainRollouts({ make: () => ({ start: async () => {} }) as Rollouts, log: SILENT, elsewhere });
  await expect(rollouts.start(AbortSignal.abort())).rejects.toMatchObject({ code: 'NOT_LEADER' });
  expect(rollouts.here).toBeUndefined();
});

it('what an agent proposes while the store is away waits for it, under one id', async () => {
  const ids: (string | undefined)[] = [];
  const create = async ({ id }: { id?: string | undefined }) => {
    ids.push(id);
    if (ids.length === 1) throw away();
    return fresh();
  };
  const { proxy, target, policy } = fresh();
  await propose({ create }, { proxy, target, policy }, SILENT, new AbortController().signal);
  expect(ids).toEqual([expect.any(String), ids[0]]);
});
