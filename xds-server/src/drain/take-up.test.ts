import { SluiceError } from '@sluice/contract';
import { expect, it } from 'vitest';
import { SILENT } from '../log.ts';
import { MemoryStore } from '../store/memory.ts';
import { fresh } from '../testing/story.ts';
import { TakeUp } from './take-up.ts';

const away = () => new SluiceError('KUBE_AWAY', 'the API server is away');

it('what a store that goes away in the middle left half done is begun for all of them, once each', async () => {
  const store = new MemoryStore();
  for (const id of ['a', 'b', 'c'])
    await store.insertUpgrade(fresh({ id, ...(id === 'c' && { rollbackId: 'x' }) }), []);
  const live = new Set<string>();
  const resumed: string[] = [];
  let reads = 0;
  let finds = 0;
  const { record } = store;
  store.record = (id) => (++reads === 2 ? Promise.reject(away()) : record.call(store, id));
  const takeUp = new TakeUp(
    {
      store,
      log: SILENT,
      wanted: ({ id }) => !live.has(id),
      run: ({ id }) => live.add(id),
      find: async () => {
        if (++finds === 1) throw away();
        return undefined;
      },
      event: async (id, { type }) => {
        if (type === 'resumed') resumed.push(id);
      },
    },
    new AbortController().signal,
  );
  const done = takeUp.again();
  expect(takeUp.runs).toBe(true);
  await done;
  expect(takeUp.runs).toBe(false);
  expect(resumed.sort()).toEqual(['a', 'b', 'c']);
});
