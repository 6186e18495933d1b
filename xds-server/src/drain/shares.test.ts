import { DEFAULT_POLICY } from '@sluice/contract';
import { expect, it } from 'vitest';
import { fresh, passed, run, serving, turn } from '../testing/story.ts';
import { Shares } from './shares.ts';

it('a drain of another replica has a share until its proxy is forgotten', () => {
  const policy = { ...DEFAULT_POLICY, pacing: { ...DEFAULT_POLICY.pacing, scope: 'fleet' as const, perSecond: 10 } };
  const other = run([turn, passed, serving], fresh({ id: 'other', proxy: 'edge-2', policy })).state;
  const own = fresh({ policy });
  const shares = new Shares(
    () => [],
    () => {},
  );
  shares.noticed(other, true);
  expect(shares.first(own)).toBe(5);
  shares.forget('edge-2');
  expect(shares.first(own)).toBeUndefined();
  shares.close();
});
