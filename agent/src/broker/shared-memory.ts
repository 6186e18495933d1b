import { closeSync, existsSync, fstatSync, openSync, readSync, renameSync, writeFileSync, writeSync } from 'node:fs';
import { SluiceError } from '@sluice/contract';

/**
 * Envoy's hot restart shared memory, /dev/shm/envoy_shared_memory_<base id * 10> (hot_restart_impl.h, SharedMemory):
 *   u64 size = 104 | u64 version = 11 | pthread_mutex_t (40) log lock | pthread_mutex_t (40) access log lock | u64 flags
 * Flag 1 = an Envoy is initializing; another one that starts meanwhile exits ("previous envoy process is still
 * initializing"). It is cleared when the child drains its parent's listeners, so a child that dies before leaves it set
 * for ever (envoyproxy/envoy issues 726, 4797, 33446).
 */
const SIZE = 104;
const VERSION = 11;
const FLAGS_AT = 96;
const INITIALIZING = 1n;

export interface SharedMemoryOptions {
  /** For tests. */
  readonly folder?: string;
}

export function sharedMemoryPath(baseId: number, { folder = '/dev/shm' }: SharedMemoryOptions = {}): string {
  return `${folder}/envoy_shared_memory_${baseId * 10}`;
}

export function sharedMemoryExists(baseId: number, options?: SharedMemoryOptions): boolean {
  return existsSync(sharedMemoryPath(baseId, options));
}

/** Is the flag set? False when there is no shared memory. Throws PREFLIGHT_SHARED_MEMORY when it is not of a known form. */
export function readInitializingFlag(baseId: number, options?: SharedMemoryOptions): boolean {
  return withFile(sharedMemoryPath(baseId, options), 'r', (fd) => (readFlags(fd) & INITIALIZING) !== 0n) ?? false;
}

/**
 * Clears the flag of an Envoy that died while initializing. `alive`: pids of every Envoy of this base id that may be
 * initializing; with one alive the flag may be true, and PHASE_REFUSED is thrown. Returns whether the flag was set.
 */
export function clearInitializing(
  baseId: number,
  alive: readonly number[] = [],
  options?: SharedMemoryOptions,
): boolean {
  const path = sharedMemoryPath(baseId, options);
  const set = withFile(path, 'r+', (fd) => {
    const flags = readFlags(fd);
    if ((flags & INITIALIZING) === 0n) return false;
    const initializing = alive.filter(isAlive);
    if (initializing.length > 0) {
      const pids = initializing.join(', ');
      throw new SluiceError('PHASE_REFUSED', `expected no initializing Envoy of base id ${baseId}, found pid ${pids}`);
    }
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(flags & ~INITIALIZING);
    writeSync(fd, bytes, 0, 8, FLAGS_AT);
    return true;
  });
  return set ?? false;
}

/**
 * Makes the shared memory as an Envoy of epoch 0 does, unless it is there: an Envoy of a later epoch opens it without
 * creating it, and after a reboot it is gone. Returns whether it was made.
 */
export function ensureSharedMemory(baseId: number, options?: SharedMemoryOptions): boolean {
  const path = sharedMemoryPath(baseId, options);
  if (existsSync(path)) return false;
  const bytes = Buffer.alloc(SIZE);
  bytes.writeBigUInt64LE(BigInt(SIZE), 0);
  bytes.writeBigUInt64LE(BigInt(VERSION), 8);
  // Two unlocked glibc mutexes, PTHREAD_MUTEX_ROBUST and PTHREAD_PROCESS_SHARED (__kind = 0x90), as initializeMutex() leaves them.
  for (const mutexAt of [16, 56]) bytes.writeUInt32LE(0x90, mutexAt + 16);
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, bytes, { mode: 0o600 });
  renameSync(draft, path);
  return true;
}

function withFile<T>(path: string, flags: 'r' | 'r+', use: (fd: number) => T): T | undefined {
  let fd: number;
  try {
    fd = openSync(path, flags);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new SluiceError('PREFLIGHT_SHARED_MEMORY', `expected to open ${path}, found ${(error as Error).message}`, {
      cause: error,
    });
  }
  try {
    const bytes = Buffer.alloc(16);
    const { size } = fstatSync(fd);
    readSync(fd, bytes, 0, 16, 0);
    const found = [size, Number(bytes.readBigUInt64LE(0)), Number(bytes.readBigUInt64LE(8))];
    if (found[0] !== SIZE || found[1] !== SIZE || found[2] !== VERSION) {
      const expected = `${SIZE} bytes of version ${VERSION}`;
      throw new SluiceError('PREFLIGHT_SHARED_MEMORY', `expected ${expected} in ${path}, found ${found.join('/')}`);
    }
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

function readFlags(fd: number): bigint {
  const bytes = Buffer.alloc(8);
  readSync(fd, bytes, 0, 8, FLAGS_AT);
  return bytes.readBigUInt64LE();
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
