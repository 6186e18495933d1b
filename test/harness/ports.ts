import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

/**
 * Runs side by side on one machine must share neither listen ports nor hot-restart base ids. A run claims a block: a lock
 * file that names its owner; the block number gives both. A block whose owner is dead is free again.
 */
export const PORTS_PER_BLOCK = 100;
export const BASE_IDS_PER_BLOCK = 20;
const FIRST_PORT = 12_000;
const FIRST_BASE_ID = 50_000;
/** Ports stay below 32768, where Linux takes the local ports of outgoing connections from. */
const BLOCKS = 200;

export interface Block {
  /** The next unused port of the block that nobody listens on. */
  port(): Promise<number>;
  /** The next unused base id of the block. */
  baseId(): number;
  /** A temp folder of this run, removed by `release`. */
  readonly dir: string;
  /** Removes the folder, the shared memory files of the block's base ids and the claim; `keepDir` leaves the folder. */
  release(keepDir?: boolean): Promise<void>;
}

export async function claimBlock(lockDir = path.join(tmpdir(), 'sluice-blocks')): Promise<Block> {
  await mkdir(lockDir, { recursive: true, mode: 0o777 });
  const start = process.pid % BLOCKS;
  for (let i = 0; i < BLOCKS; i++) {
    const index = (start + i) % BLOCKS;
    const lock = path.join(lockDir, String(index));
    if (await claim(lock)) return makeBlock(index, lock);
  }
  throw new Error(`all ${BLOCKS} blocks in ${lockDir} are taken: remove those of runs that have ended`);
}

async function claim(lock: string): Promise<boolean> {
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      await writeFile(lock, `${process.pid}\n`, { flag: 'wx' });
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      const owner = Number(await readFile(lock, 'utf8').catch(() => ''));
      // 0 = the owner is just writing it.
      if (owner === 0 || alive(owner)) return false;
      await rm(lock, { force: true });
    }
  }
  return false;
}

async function makeBlock(index: number, lock: string): Promise<Block> {
  // Short: a Unix socket's path has 107 bytes at most.
  const dir = await mkdtemp(path.join(tmpdir(), `sluice-${index}-`));
  const firstBase = FIRST_BASE_ID + index * BASE_IDS_PER_BLOCK;
  let nextPort = 0;
  let nextBase = 0;
  return {
    dir,
    async port() {
      while (nextPort < PORTS_PER_BLOCK) {
        const port = FIRST_PORT + index * PORTS_PER_BLOCK + nextPort++;
        if (await isFree(port)) return port;
      }
      throw new Error(`no free port is left in block ${index}`);
    },
    baseId() {
      if (nextBase >= BASE_IDS_PER_BLOCK) throw new Error(`no base id is left in block ${index}`);
      return firstBase + nextBase++;
    },
    async release(keepDir = false) {
      for (let n = 0; n < nextBase; n++) await removeSharedMemory(firstBase + n);
      if (!keepDir) await rm(dir, { recursive: true, force: true });
      await rm(lock, { force: true });
    },
  };
}

/** Removes what Envoys of that base id leave in /dev/shm (Envoy keys its region by ten times the base id). */
export async function removeSharedMemory(baseId: number): Promise<void> {
  const prefix = `envoy_shared_memory_${baseId * 10}`;
  for (const name of await readdir('/dev/shm').catch(() => [])) {
    if (name === prefix || name.startsWith(`${prefix}_`)) await rm(path.join('/dev/shm', name), { force: true });
  }
}

export function isFree(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
