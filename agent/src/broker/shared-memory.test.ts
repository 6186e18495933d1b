import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { clearInitializing, ensureSharedMemory, readInitializingFlag, sharedMemoryPath } from './shared-memory.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-shm-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function setFlags(value: bigint): void {
  const bytes = readFileSync(sharedMemoryPath(8, { folder }));
  bytes.writeBigUInt64LE(value, 96);
  writeFileSync(sharedMemoryPath(8, { folder }), bytes);
}

// The bytes of one that Envoy 1.38.3 made: size, version, two mutexes of kind 0x90.
test('it is made as Envoy makes it, and only where there is none', () => {
  expect(ensureSharedMemory(8, { folder })).toBe(true);
  const bytes = readFileSync(sharedMemoryPath(8, { folder }));
  expect(bytes).toHaveLength(104);
  expect(bytes.subarray(0, 16).toString('hex')).toBe('68000000000000000b00000000000000');
  expect([bytes.readUInt32LE(32), bytes.readUInt32LE(72)]).toEqual([0x90, 0x90]);
  setFlags(1n);
  expect(ensureSharedMemory(8, { folder })).toBe(false);
  expect(readInitializingFlag(8, { folder })).toBe(true);
});

test('the flag of a dead Envoy is cleared, and nothing else', () => {
  ensureSharedMemory(8, { folder });
  setFlags(3n);
  expect(clearInitializing(8, [2 ** 22 + 1], { folder })).toBe(true);
  expect(readInitializingFlag(8, { folder })).toBe(false);
  expect(readFileSync(sharedMemoryPath(8, { folder })).readBigUInt64LE(96)).toBe(2n);
  expect(clearInitializing(8, [], { folder })).toBe(false);
});

test('the flag of a live Envoy is left alone', () => {
  ensureSharedMemory(8, { folder });
  setFlags(1n);
  expect(() => clearInitializing(8, [process.pid], { folder })).toThrow(/pid/);
  expect(readInitializingFlag(8, { folder })).toBe(true);
});

test('a file of another form is refused, a missing one has no flag', () => {
  expect(readInitializingFlag(8, { folder })).toBe(false);
  expect(clearInitializing(8, [], { folder })).toBe(false);
  writeFileSync(sharedMemoryPath(8, { folder }), Buffer.alloc(104));
  expect(() => readInitializingFlag(8, { folder })).toThrow(/104 bytes of version 11/);
  writeFileSync(sharedMemoryPath(8, { folder }), 'short');
  expect(() => clearInitializing(8, [], { folder })).toThrow(/104 bytes of version 11/);
});
