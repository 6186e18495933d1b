import { expect, it } from 'vitest';
import type { CommandContext } from './context.ts';
import type { CommandEpoch, CommandMeta } from './epoch.ts';
import { listenFd } from './method.ts';

const context = { spec: { stopSignal: 'SIGUSR1' }, log: () => {} } as unknown as CommandContext;

/** What `settle` touches of an epoch, and what happened to it. */
function epoch(state: CommandMeta['state']) {
  const happened: string[] = [];
  let accepts = true;
  const fake = {
    number: 0,
    meta: { state },
    kill: async () => void happened.push('killed'),
    group: {
      signal: (name: string) => {
        happened.push(name);
        accepts = false;
      },
      accepts: () => accepts,
    },
  };
  return { epoch: fake as unknown as CommandEpoch, happened };
}

it('an agent that died before the new one was ready: that one is killed, the old one is not touched', async () => {
  const [starting, old] = [epoch('starting'), epoch('serving')];
  expect(await listenFd.settle({ context, starting: starting.epoch, old: old.epoch })).toBe(false);
  expect([starting.happened, old.happened]).toEqual([['killed'], []]);
});

it('one that died when both said that they serve: the old one is stopped', async () => {
  const [starting, old] = [epoch('serving'), epoch('serving')];
  expect(await listenFd.settle({ context, starting: starting.epoch, old: old.epoch })).toBe(true);
  expect([starting.happened, old.happened]).toEqual([[], ['SIGUSR1']]);
});

it('what of the new one comes from the old one: whose place it takes, and what to go back to', () => {
  const old = { epoch: 4, binary: '/bin/a', config: '/etc/a' } as CommandMeta;
  const before = { binary: '/bin/a', config: '/etc/a' };
  expect(listenFd.line(old, { createdBy: 'u1' })).toEqual({ upgradeId: 'u1', parent: 4, before });
  expect(listenFd.line(old, {})).toEqual({ parent: 4, before });
});
