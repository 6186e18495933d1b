import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { takeLock } from './lock.ts';

test('one holder at a time, named to the next, and free again after a release', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-lock-'));
  try {
    const first = await takeLock(folder, 'slot-1');
    const claim = takeLock(folder, 'slot-1');
    await expect(claim).rejects.toMatchObject({ code: 'SLOT_TAKEN' });
    await expect(claim).rejects.toThrow(`process ${process.pid}`);
    const other = await takeLock(folder, 'slot-2');
    await first.release();
    const again = await takeLock(folder, 'slot-1');
    await Promise.all([again.release(), other.release()]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('of many claims at the same moment exactly one succeeds', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-lock-'));
  try {
    const claims = await Promise.allSettled(Array.from({ length: 10 }, () => takeLock(folder, 'slot-1')));
    const held = claims.flatMap((c) => (c.status === 'fulfilled' ? [c.value] : []));
    expect(held.length).toBe(1);
    await held[0]?.release();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
