import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { DEFAULT_POLICY } from '@sluice/contract';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { OrderSink } from '../drain/commands.ts';
import { Driver } from '../drain/driver.ts';
import type { Agents } from '../link/agents.ts';
import type { Log } from '../log.ts';
import { checkAgainstModel } from '../testing/store-model.ts';
import { STORE_CONFORMANCE, sampleUpgrade } from './conformance.ts';
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

  it('answers as MemoryStore, whatever is done', async () => {
    let n = 0;
    await checkAgainstModel(async () => {
      const { open } = subject();
      if (_ === 'memory') return { open };
      const file = join(folder, `model-${n++}.db`);
      const again = async () => new SqliteStore(file);
      return { open: again, reopen: again };
    }, 50);
  });
});

describe('SqliteStore', () => {
  it('refuses a file that is no database', () => {
    const file = join(folder, 'state.db');
    writeFileSync(file, 'no database, but long enough to have a header '.repeat(20));
    expect(() => new SqliteStore(file)).toThrow(/state file .*: expected a database/);
  });

  it('takes up the file of schema version 1, and a controller the upgrades in it', async () => {
    const file = join(folder, 'state.db');
    const db = new DatabaseSync(file);
    db.exec(`CREATE TABLE agents (proxy TEXT NOT NULL, slot TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (proxy, slot)) STRICT;
      CREATE TABLE upgrades (
        id TEXT PRIMARY KEY, proxy TEXT NOT NULL, phase TEXT NOT NULL, created_at INTEGER NOT NULL,
        version INTEGER NOT NULL, body TEXT NOT NULL
      ) STRICT;
      CREATE INDEX upgrades_by_proxy ON upgrades (proxy, created_at DESC, id DESC);
      CREATE TABLE record (
        upgrade_id TEXT NOT NULL REFERENCES upgrades (id) ON DELETE CASCADE, seq INTEGER NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (upgrade_id, seq)
      ) STRICT;
      PRAGMA user_version = 1;`);
    const { memory: _, pacing: __, rules: ___, ...policy } = DEFAULT_POLICY;
    const old = { ...sampleUpgrade('a', { phase: 'Done' }), policy };
    db.prepare('INSERT INTO upgrades VALUES (?, ?, ?, ?, 3, ?)').run('a', 'edge', 'Done', 1_000, JSON.stringify(old));
    db.close();
    const store = keep(new SqliteStore(file));
    await store.appendEnded('a', [], 4);
    expect(await store.ended('a')).toEqual({ items: [], dropped: 4 });
    expect(await store.rollouts()).toEqual([]);
    const driver = new Driver({ store, agents: {} as Agents, orders: {} as OrderSink, log: {} as Log });
    expect((await driver.find('a'))?.policy).toEqual(DEFAULT_POLICY);
  });

  it('is away, and not broken, while another process holds the file', async () => {
    const file = join(folder, 'state.db');
    const store = keep(new SqliteStore(file));
    const { version } = await store.insertUpgrade(sampleUpgrade('a'), []);
    const other = new DatabaseSync(file);
    other.exec('BEGIN IMMEDIATE');
    const write = () => store.updateUpgrade(sampleUpgrade('a', { phase: 'Done' }), version, []);
    await expect(write()).rejects.toMatchObject({ code: 'STATE_AWAY' });
    other.exec('COMMIT');
    other.close();
    await write();
    expect((await store.upgrade('a'))?.state.phase).toBe('Done');
  });

  it('refuses the file of a newer Sluice', () => {
    const file = join(folder, 'state.db');
    const db = new DatabaseSync(file);
    db.exec('PRAGMA user_version = 99');
    db.close();
    expect(() => new SqliteStore(file)).toThrow(/expected schema version 3 or older, found 99/);
  });
});
