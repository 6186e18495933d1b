import { mkdtemp, readdir, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

/**
 * Runs side by side on one machine must share neither listen ports nor hot-restart base ids. A run claims a block by binding
 * an abstract Unix socket: the kernel lets one process have it and frees it when that dies, and its scope is the network
 * namespace, as that of the ports is. The block's number gives both ports and base ids.
 */
export const PORTS_PER_BLOCK = 100;
export const BASE_IDS_PER_BLOCK = 20;
const FIRST_PORT = 12_000;
const FIRST_BASE_ID = 50_000;
/** Ports stay below 32768, where Linux takes the local ports of outgoing connections from. */
const BLOCKS = 200;

export interface Block {
  readonly index: number;
  /** The next unused port of the block that nobody listens on. */
  port(): Promise<number>;
  /** The next unused base id of the block. */
  baseId(): number;
  /** A temp folder of this run, removed by `release`. */
  readonly dir: string;
  /** Removes the folder, the shared memory files of the block's base ids and the claim; `keepDir` leaves the folder. */
  release(keepDir?: boolean): Promise<void>;
}

export async function claimBlock(): Promise<Block> {
  const start = process.pid % BLOCKS;
  for (let i = 0; i < BLOCKS; i++) {
    const index = (start + i) % BLOCKS;
    const claim = await bindAbstract(`sluice-test-block-${index}`);
    if (claim !== undefined) return makeBlock(index, claim);
  }
  throw new Error(`all ${BLOCKS} blocks are taken by other runs: end some of them`);
}

/** Undefined: another process has the name. The socket keeps no process alive. */
function bindAbstract(name: string): Promise<net.Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = net.createServer((socket) => socket.destroy());
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? resolve(undefined) : reject(error),
    );
    server.listen(`\0${name}`, () => resolve(server.unref()));
  });
}

async function makeBlock(index: number, claim: net.Server): Promise<Block> {
  // Short: a Unix socket's path has 107 bytes at most.
  const dir = await mkdtemp(path.join(tmpdir(), `sluice-${index}-`));
  const firstBase = FIRST_BASE_ID + index * BASE_IDS_PER_BLOCK;
  let nextPort = 0;
  let nextBase = 0;
  return {
    index,
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
      await new Promise((resolve) => claim.close(resolve));
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
