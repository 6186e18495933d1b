import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import {
  type EndedConnection,
  isRolloutOver,
  MAX_ENDED,
  type RecordEntry,
  type RolloutEntry,
  SluiceError,
  TERMINAL_PHASES,
} from '@sluice/contract';
import type { UpgradeState } from '../drain/state.ts';
import type { RolloutState } from '../rollout/state.ts';
import type { AgentRow, Ended, Store, Stored, StoredRollout } from './store.ts';

const SCHEMA_VERSION = 3;
const SCHEMA = `
  CREATE TABLE agents (proxy TEXT NOT NULL, slot TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (proxy, slot)) STRICT;
  CREATE TABLE upgrades (
    id TEXT PRIMARY KEY, proxy TEXT NOT NULL, phase TEXT NOT NULL, created_at INTEGER NOT NULL,
    version INTEGER NOT NULL, body TEXT NOT NULL
  ) STRICT;
  CREATE INDEX upgrades_by_proxy ON upgrades (proxy, created_at DESC, id DESC);
  CREATE TABLE record (
    upgrade_id TEXT NOT NULL REFERENCES upgrades (id) ON DELETE CASCADE, seq INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (upgrade_id, seq)
  ) STRICT;
`;
/** What each schema version added, from the second on. */
const STEPS: readonly string[] = [
  `CREATE TABLE ended (
    upgrade_id TEXT NOT NULL REFERENCES upgrades (id) ON DELETE CASCADE, epoch INTEGER NOT NULL, connection TEXT NOT NULL,
    at INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (upgrade_id, epoch, connection)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE ended_dropped (
    upgrade_id TEXT PRIMARY KEY REFERENCES upgrades (id) ON DELETE CASCADE, dropped INTEGER NOT NULL
  ) STRICT;`,
  `CREATE TABLE rollouts (
    id TEXT PRIMARY KEY, over INTEGER NOT NULL, created_at INTEGER NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL
  ) STRICT;
  CREATE TABLE rollout_record (
    rollout_id TEXT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE, seq INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (rollout_id, seq)
  ) STRICT, WITHOUT ROWID;`,
];

/** The store in one SQLite file, which is made when absent. One controller uses it at a time. */
export class SqliteStore implements Store {
  readonly #db: DatabaseSync;

  /** Throws CONFIG_INVALID when the file can not be used or was written by a newer Sluice. */
  constructor(file: string) {
    try {
      if (file !== ':memory:') mkdirSync(dirname(file), { recursive: true });
      this.#db = new DatabaseSync(file, { enableForeignKeyConstraints: true, timeout: 2_000 });
      this.#db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;');
    } catch (cause) {
      throw new SluiceError('CONFIG_INVALID', `state file ${file}: expected a database, found: ${text(cause)}`, {
        cause,
      });
    }
    this.#migrate(file);
  }

  #migrate(file: string): void {
    const found = (this.#db.prepare('PRAGMA user_version').get() as { user_version: number }).user_version;
    if (found === SCHEMA_VERSION) return;
    if (found > SCHEMA_VERSION) {
      this.#db.close();
      throw new SluiceError(
        'CONFIG_INVALID',
        `state file ${file}: expected schema version ${SCHEMA_VERSION} or older, found ${found}`,
        { hint: 'use the Sluice that wrote it, or another state file' },
      );
    }
    const missing = found === 0 ? [SCHEMA, ...STEPS] : STEPS.slice(found - 1);
    this.#transaction(() => this.#db.exec(`${missing.join('\n')} PRAGMA user_version = ${SCHEMA_VERSION};`));
  }

  async agents(): Promise<readonly AgentRow[]> {
    return this.#all('SELECT body FROM agents ORDER BY proxy, slot').map((row) => JSON.parse(row.body as string));
  }

  async putAgent(row: AgentRow): Promise<void> {
    this.#run(
      'INSERT OR REPLACE INTO agents (proxy, slot, body) VALUES (?, ?, ?)',
      row.proxy,
      row.slot,
      JSON.stringify(row),
    );
  }

  async upgrades(filter: { readonly proxy?: string; readonly limit?: number } = {}): Promise<readonly Stored[]> {
    const proxy = filter.proxy ?? null;
    return this.#all(
      `SELECT body, version FROM upgrades WHERE (? IS NULL OR proxy = ?)
       ORDER BY created_at DESC, id DESC LIMIT ?`,
      proxy,
      proxy,
      filter.limit ?? -1,
    ).map(stored);
  }

  async upgrade(id: string): Promise<Stored | undefined> {
    return this.#all('SELECT body, version FROM upgrades WHERE id = ?', id).map(stored)[0];
  }

  async insertUpgrade(state: UpgradeState, entries: readonly RecordEntry[]): Promise<Stored> {
    this.#transaction(() => {
      const { changes } = this.#run(
        `INSERT INTO upgrades (id, proxy, phase, created_at, version, body) VALUES (?, ?, ?, ?, 1, ?)
         ON CONFLICT (id) DO NOTHING`,
        state.id,
        state.proxy,
        state.phase,
        state.createdAt,
        JSON.stringify(state),
      );
      if (changes === 0) throw new SluiceError('UPGRADE_CONFLICT', `upgrade ${state.id} exists already`);
      this.#append(entries);
    });
    return { state, version: '1' };
  }

  async updateUpgrade(state: UpgradeState, expected: string, entries: readonly RecordEntry[]): Promise<Stored> {
    this.#transaction(() => {
      const { changes } = this.#run(
        'UPDATE upgrades SET phase = ?, version = version + 1, body = ? WHERE id = ? AND version = ?',
        state.phase,
        JSON.stringify(state),
        state.id,
        Number(expected),
      );
      if (changes === 0) {
        const found = this.#all('SELECT version FROM upgrades WHERE id = ?', state.id)[0]?.version ?? 'none';
        throw new SluiceError('UPGRADE_CONFLICT', `upgrade ${state.id}: expected version ${expected}, found ${found}`);
      }
      this.#append(entries);
    });
    return { state, version: String(Number(expected) + 1) };
  }

  async prune(proxy: string, keep: number): Promise<void> {
    const terminal = TERMINAL_PHASES.map(() => '?').join(', ');
    this.#run(
      `DELETE FROM upgrades WHERE id IN (
         SELECT id FROM upgrades WHERE proxy = ? AND phase IN (${terminal})
         ORDER BY created_at DESC, id DESC LIMIT -1 OFFSET ?)`,
      proxy,
      ...TERMINAL_PHASES,
      keep,
    );
  }

  async appendEnded(upgradeId: string, items: readonly EndedConnection[], dropped: number): Promise<void> {
    // Each drain of a fleet tells its ends twice a second. Without a flush to the disk they outlive a SIGKILL all the same,
    // and this thread does not stand still for the disk that often; a power loss may take the last of them.
    this.#lightly(() => {
      const insert = this.#db.prepare(
        'INSERT OR REPLACE INTO ended (upgrade_id, epoch, connection, at, body) VALUES (?, ?, ?, ?, ?)',
      );
      for (const item of items) {
        const { epoch, id } = item.connection;
        insert.run(upgradeId, epoch, id, Math.floor(item.at), JSON.stringify(item));
      }
      if (dropped > 0) {
        this.#run(
          `INSERT INTO ended_dropped (upgrade_id, dropped) VALUES (?, ?)
           ON CONFLICT (upgrade_id) DO UPDATE SET dropped = max(dropped, excluded.dropped)`,
          upgradeId,
          dropped,
        );
      }
    });
  }

  async ended(upgradeId: string): Promise<Ended> {
    const items = this.#all(
      'SELECT body FROM ended WHERE upgrade_id = ? ORDER BY at, connection LIMIT ?',
      upgradeId,
      MAX_ENDED,
    ).map((row) => JSON.parse(row.body as string) as EndedConnection);
    const [row] = this.#all('SELECT dropped FROM ended_dropped WHERE upgrade_id = ?', upgradeId);
    return { items, dropped: Number(row?.dropped ?? 0) };
  }

  async record(upgradeId: string): Promise<readonly RecordEntry[]> {
    return this.#all('SELECT body FROM record WHERE upgrade_id = ? ORDER BY seq', upgradeId).map((row) =>
      JSON.parse(row.body as string),
    );
  }

  async rollouts(): Promise<readonly StoredRollout[]> {
    return this.#all('SELECT body, version FROM rollouts ORDER BY created_at DESC, id DESC').map(storedRollout);
  }

  async rollout(id: string): Promise<StoredRollout | undefined> {
    return this.#all('SELECT body, version FROM rollouts WHERE id = ?', id).map(storedRollout)[0];
  }

  async insertRollout(state: RolloutState, entries: readonly RolloutEntry[]): Promise<StoredRollout> {
    this.#transaction(() => {
      const { changes } = this.#run(
        `INSERT INTO rollouts (id, over, created_at, version, body) VALUES (?, ?, ?, 1, ?) ON CONFLICT (id) DO NOTHING`,
        state.id,
        Number(isRolloutOver(state.phase)),
        state.createdAt,
        JSON.stringify(state),
      );
      if (changes === 0) throw new SluiceError('ROLLOUT_CONFLICT', `rollout ${state.id} exists already`);
      this.#appendRollout(entries);
    });
    return { state, version: '1' };
  }

  async updateRollout(state: RolloutState, expected: string, entries: readonly RolloutEntry[]): Promise<StoredRollout> {
    this.#transaction(() => {
      const { changes } = this.#run(
        'UPDATE rollouts SET over = ?, version = version + 1, body = ? WHERE id = ? AND version = ?',
        Number(isRolloutOver(state.phase)),
        JSON.stringify(state),
        state.id,
        Number(expected),
      );
      if (changes === 0) {
        const found = this.#all('SELECT version FROM rollouts WHERE id = ?', state.id)[0]?.version ?? 'none';
        throw new SluiceError('ROLLOUT_CONFLICT', `rollout ${state.id}: expected version ${expected}, found ${found}`);
      }
      this.#appendRollout(entries);
    });
    return { state, version: String(Number(expected) + 1) };
  }

  async pruneRollouts(keep: number): Promise<void> {
    this.#run(
      `DELETE FROM rollouts WHERE id IN (
         SELECT id FROM rollouts WHERE over = 1 ORDER BY created_at DESC, id DESC LIMIT -1 OFFSET ?)`,
      keep,
    );
  }

  async rolloutRecord(rolloutId: string): Promise<readonly RolloutEntry[]> {
    return this.#all('SELECT body FROM rollout_record WHERE rollout_id = ? ORDER BY seq', rolloutId).map((row) =>
      JSON.parse(row.body as string),
    );
  }

  async ping(): Promise<void> {
    this.#all('SELECT 1 AS one');
  }

  async close(): Promise<void> {
    if (this.#db.isOpen) this.#db.close();
  }

  #append(entries: readonly RecordEntry[]): void {
    for (const entry of entries) {
      this.#run(
        'INSERT INTO record (upgrade_id, seq, body) VALUES (?, ?, ?)',
        entry.upgradeId,
        entry.seq,
        JSON.stringify(entry),
      );
    }
  }

  #appendRollout(entries: readonly RolloutEntry[]): void {
    const sql = 'INSERT INTO rollout_record (rollout_id, seq, body) VALUES (?, ?, ?)';
    for (const entry of entries) this.#run(sql, entry.rolloutId, entry.seq, JSON.stringify(entry));
  }

  #all(sql: string, ...values: Value[]): Record<string, unknown>[] {
    return guarded(() => this.#db.prepare(sql).all(...values) as Record<string, unknown>[]);
  }

  #run(sql: string, ...values: Value[]): { changes: number | bigint } {
    return guarded(() => this.#db.prepare(sql).run(...values));
  }

  /** A transaction that the disk need not confirm. */
  #lightly(work: () => void): void {
    guarded(() => this.#db.exec('PRAGMA synchronous = NORMAL'));
    try {
      this.#transaction(work);
    } finally {
      guarded(() => this.#db.exec('PRAGMA synchronous = FULL'));
    }
  }

  #transaction(work: () => void): void {
    guarded(() => {
      this.#db.exec('BEGIN IMMEDIATE');
      try {
        work();
        this.#db.exec('COMMIT');
      } catch (thrown) {
        // Some failures, such as a full disk, have ended it already.
        if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
        throw thrown;
      }
    });
  }
}

type Value = string | number | null;

/** SQLITE_BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN (https://www.sqlite.org/rescode.html): somebody can make an end of it. */
const PASSING: ReadonlySet<number> = new Set([5, 6, 8, 10, 13, 14]);

function stored(row: Record<string, unknown>): Stored {
  return { state: JSON.parse(row.body as string) as UpgradeState, version: String(row.version) };
}

function storedRollout(row: Record<string, unknown>): StoredRollout {
  return { state: JSON.parse(row.body as string) as RolloutState, version: String(row.version) };
}

function guarded<T>(work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    if (thrown instanceof SluiceError) throw thrown;
    const { errcode = 0 } = thrown as { errcode?: number };
    if (PASSING.has(errcode & 0xff)) {
      throw new SluiceError('STATE_AWAY', `the state file: ${text(thrown)}`, { cause: thrown });
    }
    throw new SluiceError('INTERNAL', `the state file failed: ${text(thrown)}`, {
      cause: thrown,
      hint: 'check the disk and the permissions of the state file',
    });
  }
}

function text(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
