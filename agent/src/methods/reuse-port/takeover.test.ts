import { expect, it, vi } from 'vitest';
import type { Epoch } from '../../epochs/epoch.ts';
import type { KeeperContext } from '../../keeper/context.ts';
import type { ListenGroups } from './groups.ts';
import { takeOver } from './takeover.ts';

vi.mock('../../keeper/kept.ts', () => ({ keepListeners: () => Promise.reject(new Error('ENOSPC')) }));

const self = (await import('../../epochs/proc.ts')).identify(process.pid);

/** Both live; `stops`: the old one closes its listeners when it is told to. */
function parts(broken: Partial<Record<keyof ListenGroups, () => Promise<never>>>) {
  const did: string[] = [];
  const step = (name: string) => async () => {
    did.push(name);
  };
  const groups = {
    join: async () => [],
    flip: step('flip'),
    flipBack: step('flipBack'),
    handshakes: () => new Set(),
    waiting: () => 0,
    heldByOld: () => false,
    remove: step('remove'),
    release: () => did.push('release'),
    ...broken,
  } as unknown as ListenGroups;
  const epoch = (number: number) =>
    ({
      number,
      process: self,
      admin: { get: async () => '', post: async () => '' },
      gone: new Promise(() => {}),
      update: (change: object) => did.push(`${number} ${Object.keys(change).join()}`),
    }) as unknown as Epoch;
  const context = { log: (level: string, message: string) => level !== 'debug' && did.push(message) };
  return { did, parts: { context: context as unknown as KeeperContext, groups, old: epoch(0), epoch: epoch(1) } };
}

it('what fails when the old one accepts no more does not fail the new one', async () => {
  const fails = () => Promise.reject(new Error('setsockopt: ENOMEM'));
  const { did, parts: given } = parts({ remove: fails });
  await takeOver(given);
  expect(did).toEqual(['1 steered', 'flip', 'steering not undone', 'release', 'steering not undone']);
});

it('what fails before goes back to the old one', async () => {
  const { did, parts: given } = parts({ flip: () => Promise.reject(new Error('no')) });
  await expect(takeOver(given)).rejects.toThrow('no');
  expect(did).toEqual(['1 steered', 'flipBack']);
});
