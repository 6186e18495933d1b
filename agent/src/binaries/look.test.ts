import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { OWN_DRAIN_GUARDS } from '@sluice/contract/presets/index';
import { afterAll, expect, it } from 'vitest';
import { guardsOf } from './guards.ts';
import { lookFor } from './look.ts';

const folder = mkdtempSync(join(tmpdir(), 'look-'));
afterAll(() => rmSync(folder, { recursive: true }));

const CHUNK = 4 * 1024 * 1024;
const file = (name: string, text: string, at: number): string => {
  const bytes = Buffer.alloc(at + text.length + 10);
  bytes.write(text, at, 'latin1');
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};

it.each([0, 100, CHUNK - 5, CHUNK, 2 * CHUNK - 8])('finds a text wherever it lies: at %i', async (at) => {
  expect(await lookFor(file(`at-${at}`, 'needle', at), ['hay', 'needle'])).toEqual(['needle']);
});

it('asks the binary for the guards of a version that nobody has looked at, and only of such a one', async () => {
  const [, second = ''] = OWN_DRAIN_GUARDS;
  const binary = file('envoy', second, 50);
  expect(await guardsOf(binary, '1.41.0')).toEqual([second]);
  expect(await guardsOf(binary, '1.39.3')).toEqual([]);
  expect(await guardsOf(binary, '1.40.0')).toEqual(OWN_DRAIN_GUARDS);
  await expect(guardsOf(join(folder, 'none'), '1.41.0')).rejects.toMatchObject({ code: 'PREFLIGHT_BINARY' });
});
