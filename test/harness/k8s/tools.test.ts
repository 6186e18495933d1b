import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { buildTools, missingTools } from './tools.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'sluice-tools-'));
  vi.stubEnv('SLUICE_CACHE', dir);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(dir, { recursive: true, force: true });
});

test('an empty cache is told by the first tool that is not there, and how to get it', async () => {
  expect(await missingTools(['kubelet'])).toMatch(/^kubelet is not in the cache: `npm run test:k8s` builds it/);
});

test('without Go it says so in one line, and leaves nothing behind', async () => {
  vi.stubEnv('PATH', dir);
  const said: string[] = [];
  expect(await buildTools((line) => said.push(line), ['etcd', 'kruise-manager'])).toMatch(/^Go is not installed: .+$/);
  expect(said).toEqual([]);
  expect(await readdir(path.join(dir, 'k8s'))).toEqual([]);
});
