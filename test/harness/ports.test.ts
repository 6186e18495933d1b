import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { claimBlock } from './ports.ts';

describe('claimBlock', () => {
  let locks: string;
  beforeEach(async () => {
    locks = await mkdtemp(path.join(tmpdir(), 'sluice-locks-'));
  });
  afterEach(() => rm(locks, { recursive: true, force: true }));

  it('gives two runs different ports and base ids', async () => {
    const [a, b] = [await claimBlock(locks), await claimBlock(locks)];
    expect(await a.port()).not.toBe(await b.port());
    expect(a.baseId()).not.toBe(b.baseId());
    await a.release();
    await b.release();
  });

  it('takes a block over from a run that has died', async () => {
    const gone = 2 ** 22 - 1; // above the largest pid of this machine's default
    await writeFile(path.join(locks, String(process.pid % 200)), `${gone}\n`);
    const block = await claimBlock(locks);
    expect(await block.port()).toBe(12_000 + (process.pid % 200) * 100);
    await block.release();
  });
});
