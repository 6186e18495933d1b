import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { STORE_CONFORMANCE } from './conformance.ts';
import { MemoryStore } from './memory.ts';
import { SqliteStore } from './sqlite.ts';
import type { Store } from './store.ts';

let folder: string;
const open: Store[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-store-'));
});
afterEach(async () => {
  for (const store of open.splice(0)) await store.close();
  rmSync(folder, { recursive: true, force: true });
});
const keep = <T extends Store>(store: T): T => {
  open.push(store);
  return store;
};

describe.each([
  ['memory', () => ({ open: async () => keep(new MemoryStore()) })],
  [
    'sqlite',
    () => {
      const again = async () => keep(new SqliteStore(join(folder, 'deep', 'state.db')));
      return { open: again, reopen: again };
    },
  ],
])('%s store', (_, subject) => {
  it.each(STORE_CONFORMANCE.map((one) => [one.name, one] as const))('%s', async (_name, one) => {
    await one.run(subject());
  });
});

describe('SqliteStore', () => {
  it('refuses a file that is no database', () => {
    const file = join(folder, 'state.db');
    writeFileSync(file, 'no database, but long enough to have a header '.repeat(20));
    expect(() => new SqliteStore(file)).toThrow(/state file .*: expected a database/);
  });

  it('refuses the file of a newer Sluice', () => {
    const file = join(folder, 'state.db');
    const db = new DatabaseSync(file);
    db.exec('PRAGMA user_version = 99');
    db.close();
    expect(() => new SqliteStore(file)).toThrow(/expected schema version 2 or older, found 99/);
  });
});
