import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { k8sCacheDir, locked } from './cache.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'sluice-lock-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

test('looks for the cache in SLUICE_CACHE, then XDG_CACHE_HOME', () => {
  expect(k8sCacheDir({ SLUICE_CACHE: '/a', XDG_CACHE_HOME: '/b' })).toBe('/a/k8s');
  expect(k8sCacheDir({ XDG_CACHE_HOME: '/b' })).toBe('/b/sluice/k8s');
});

test('who works on a folder keeps the others waiting, and lets them in when it is done or fails', async () => {
  const seen: string[] = [];
  let inside = 0;
  const work = (name: string) =>
    locked(dir, async () => {
      expect(++inside).toBe(1);
      await new Promise((resolve) => setImmediate(resolve));
      seen.push(name);
      inside--;
      if (name === 'fails') throw new Error('no');
      return name;
    });
  const failed = expect(work('fails')).rejects.toThrow('no');
  expect(await Promise.all([work('a'), work('b')])).toEqual(['a', 'b']);
  await failed;
  expect(seen.sort()).toEqual(['a', 'b', 'fails']);
});
