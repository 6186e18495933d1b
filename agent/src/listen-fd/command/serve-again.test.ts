import { expect, it } from 'vitest';
import { serveAgain } from './serve-again.ts';

const begin = () => {
  const stop = new AbortController();
  const waited: number[] = [];
  return {
    stop,
    waited,
    context: { log: () => {}, now: Date.now, signal: stop.signal },
    wait: async (ms: number) => waited.push(ms),
  };
};

it('tries until another one serves', async () => {
  const { context, waited, wait } = begin();
  const start = async () => {
    if (waited.length < 3) throw new Error('not ready');
  };
  await serveAgain(context, start, wait);
  expect(waited).toEqual([200, 400, 800]);
});

it('gives up when the budget is used up, or its agent ends', async () => {
  const never = async () => {
    throw new Error('not ready');
  };
  const { context, waited, wait } = begin();
  await expect(serveAgain(context, never, wait)).rejects.toThrow('not ready');
  expect(waited).toHaveLength(10);

  const ended = begin();
  const meanwhile = async () => {
    ended.stop.abort(new Error('the agent ends'));
    throw new Error('not ready');
  };
  await expect(serveAgain(ended.context, meanwhile, ended.wait)).rejects.toThrow('the agent ends');
  expect(ended.waited).toEqual([]);
});
