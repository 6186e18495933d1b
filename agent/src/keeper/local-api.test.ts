import { MAX_OVERRIDE_TEXT } from '@sluice/contract';
import { expect, it, vi } from 'vitest';
import type { Front } from './dispatch.ts';
import type { FrontContext } from './front.ts';
import { localRequests } from './local-api.ts';

const reset = vi.fn();
const context = { registry: { get: () => ({ meta: { endedBy: 'u1' } }) } } as unknown as FrontContext;
const requests = localRequests(context, { drains: { reset } } as unknown as Front);

it('an override carries who gave it; an older command line does not say', async () => {
  await requests.reset({ epoch: 3, reason: 'must', by: 'kim' });
  expect(reset).toHaveBeenLastCalledWith('u1', 3, { by: 'kim', reason: 'must' });
  await requests.reset({ epoch: 3, reason: 'must' });
  expect(reset).toHaveBeenLastCalledWith('u1', 3, { by: 'local', reason: 'must' });
  await requests.reset({ epoch: 3 });
  expect(reset).toHaveBeenLastCalledWith('u1', 3, undefined);
});

it.each([
  [{ reason: '' }, 'expected reason to be a string'],
  [{ reason: 'must', by: 7 }, 'expected by to be a string'],
  [{ reason: 'x'.repeat(MAX_OVERRIDE_TEXT + 1) }, `expected reason to have at most ${MAX_OVERRIDE_TEXT} characters`],
])('%j is refused', async (body, message) => {
  await expect(requests.reset({ epoch: 3, ...body })).rejects.toThrow(message);
});
