import { type AgentMessage, SluiceError } from '@sluice/contract';
import { expect, it } from 'vitest';
import { Exclusive } from './exclusive.ts';
import type { FrontContext } from './front.ts';
import { Starts } from './starts.ts';

function setUp() {
  const said: AgentMessage[] = [];
  const context = {
    exclusive: new Exclusive(),
    log: () => {},
    send: (message: AgentMessage) => said.push(message),
    registry: { serving: () => undefined, statuses: () => [] },
    config: {},
    standing: { changed: () => {} },
  } as unknown as FrontContext;
  const failures = () => said.flatMap((one) => (one.type === 'failed' ? [one.message] : []));
  return { starts: new Starts(context), failures };
}

it('a start that failed is not tried again when it is asked for again: it fails in the same way', async () => {
  const { starts, failures } = setUp();
  let begun = 0;
  const start = async () => {
    begun++;
    throw new SluiceError('EPOCH_DIED', `try ${begun}`);
  };
  await starts.run('u1', start);
  await starts.run('u1', start);
  expect(begun).toBe(1);
  expect(failures()).toEqual(['try 1', 'try 1']);
  await starts.run('u2', start);
  expect(begun).toBe(2);
});

it('one that is asked for again while it is under way is joined, and can be given up', async () => {
  const { starts, failures } = setUp();
  let begun = 0;
  const start = (aborted: AbortSignal) => {
    begun++;
    return new Promise<void>((_, reject) => aborted.addEventListener('abort', () => reject(aborted.reason)));
  };
  const both = [starts.run('u1', start), starts.run('u1', start)];
  await Promise.resolve();
  await Promise.resolve();
  expect(starts.abort('u1')).toBe(true);
  await Promise.all(both);
  expect(begun).toBe(1);
  expect(failures()).toHaveLength(1);
  expect(starts.abort('u1')).toBe(false);
});
