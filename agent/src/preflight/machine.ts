import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import type { CheckResult } from '@sluice/contract';
import { residentBytes } from '../epochs/proc.ts';
import type { PreflightInput } from './index.ts';
import { failed, passed } from './result.ts';

/** A new epoch is taken to need what the serving one has, and a fifth more; with none, what a bare Envoy needs. */
const HEAD_ROOM = 1.2;
const BARE_ENVOY_BYTES = 100 * 1024 * 1024;
/** An address of a Unix socket has 108 bytes, the last one NUL (unix(7)). */
const MAX_SOCKET_PATH = 107;

export function machineChecks(input: PreflightInput): CheckResult[] {
  return [memory(input), runFolder(input)];
}

function memory({ serving, availableMemory }: PreflightInput): CheckResult {
  const available = availableMemory ?? availableBytes();
  const needed = Math.round(
    (serving ? (residentBytes(serving.pid) ?? BARE_ENVOY_BYTES) : BARE_ENVOY_BYTES) * HEAD_ROOM,
  );
  const found = `${mebibytes(available)} available, ${mebibytes(needed)} needed for a second epoch`;
  return available >= needed ? passed('memory', found) : failed('memory', 'PREFLIGHT_MEMORY', found);
}

function runFolder({ runFolder: folder }: PreflightInput): CheckResult {
  const name = 'run folder';
  try {
    if (!statSync(folder).isDirectory()) return failed(name, 'PREFLIGHT_SOCKET_DIR', `${folder} is not a folder`);
    accessSync(folder, constants.W_OK | constants.X_OK);
  } catch (error) {
    return failed(name, 'PREFLIGHT_SOCKET_DIR', (error as Error).message);
  }
  const longest = Buffer.byteLength(`${folder}/999999/admin.sock`);
  if (longest > MAX_SOCKET_PATH) {
    return failed(
      name,
      'PREFLIGHT_SOCKET_DIR',
      `${folder} is too long for a Unix socket in it (${longest} of ${MAX_SOCKET_PATH} bytes)`,
    );
  }
  return passed(name, folder);
}

/**
 * The least of what the machine has free and what the limits of our control group leave (version 1 or 2). File pages that
 * nobody used lately count as free there, as they do in MemAvailable: the kernel drops them before it kills.
 * `root`: of the file system, for tests.
 */
export function availableBytes(root = ''): number {
  const machine = Number(/^MemAvailable:\s+(\d+) kB/m.exec(read(`${root}/proc/meminfo`))?.[1] ?? Number.NaN) * 1024;
  const groups = read(`${root}/proc/self/cgroup`);
  // In a container the group's path is often one of the host's: the mounted root is then our own group.
  const v2 = ['', /^0::(.*)$/m.exec(groups)?.[1] ?? ''].map((path) =>
    left(`${root}/sys/fs/cgroup${path}`, 'memory.max', 'memory.current', 'inactive_file'),
  );
  const v1 = ['', /^\d+:(?:.*,)?memory(?:,.*)?:(.*)$/m.exec(groups)?.[1] ?? ''].map((path) =>
    left(
      `${root}/sys/fs/cgroup/memory${path}`,
      'memory.limit_in_bytes',
      'memory.usage_in_bytes',
      'total_inactive_file',
    ),
  );
  const known = [machine, ...v2, ...v1].filter((bytes) => !Number.isNaN(bytes));
  return known.length === 0 ? Number.POSITIVE_INFINITY : Math.max(0, Math.min(...known));
}

/** NaN where there is no such group, or no limit. */
function left(folder: string, limit: string, usage: string, inactive: string): number {
  const stat = new RegExp(`^${inactive} (\\d+)$`, 'm').exec(read(`${folder}/memory.stat`))?.[1] ?? '0';
  return (
    Number(read(`${folder}/${limit}`) || Number.NaN) - Number(read(`${folder}/${usage}`) || Number.NaN) + Number(stat)
  );
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 1024 / 1024)} MiB`;
}
