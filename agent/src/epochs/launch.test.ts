import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { watchAlive } from './alive.ts';
import { launch } from './launch.ts';
import { isAlive, type ProcessId, signal } from './proc.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sluice-launch-'));
  execFileSync('mkfifo', [join(dir, 'alive')]);
});
afterEach(() => rmSync(dir, { recursive: true }));

const start = (...args: string[]) =>
  launch({
    binary: args[0] as string,
    args: args.slice(1),
    alive: join(dir, 'alive'),
    log: join(dir, 'log'),
    cwd: dir,
  });

test('what is launched belongs to init, writes its log, and its death is an event', async () => {
  const id = await start('/bin/sh', '-c', 'echo hello; kill -9 $$');
  const watch = watchAlive(join(dir, 'alive'), id);
  await watch.gone;
  expect(isAlive(id)).toBe(false);
  expect(readFileSync(join(dir, 'log'), 'utf8')).toBe('hello\n');
});

test('what is launched is not a child of ours', async () => {
  const id = await start('/bin/sleep', '60');
  const parent = /^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${id.pid}/status`, 'latin1'))?.[1];
  expect(parent).not.toBe(String(process.pid));
  signal(id, 'SIGKILL');
});

test('a second watcher, such as a successor of the agent, learns of the death too', async () => {
  const id = await start('/bin/sleep', '60');
  const first = watchAlive(join(dir, 'alive'), id);
  first.stop();
  const second = watchAlive(join(dir, 'alive'), id);
  signal(id, 'SIGKILL');
  await second.gone;
  expect(isAlive(id)).toBe(false);
});

test('a binary that does not exist is gone at once and its log says why', async () => {
  const id = await start('/nowhere/envoy');
  await watchAlive(join(dir, 'alive'), id).gone;
  expect(readFileSync(join(dir, 'log'), 'utf8')).toMatch(/not found|No such file/);
});

test('nothing runs before it is noted, and what can not be noted never runs', async () => {
  const options = {
    binary: '/bin/echo',
    args: ['ran'],
    alive: join(dir, 'alive'),
    log: join(dir, 'log'),
    cwd: dir,
  };
  let noted: ProcessId | undefined;
  const refuse = (id: ProcessId) => {
    noted = id;
    throw new Error('disk full');
  };
  await expect(launch(options, refuse)).rejects.toThrow('disk full');
  await watchAlive(join(dir, 'alive'), noted as ProcessId).gone;
  expect(existsSync(join(dir, 'log'))).toBe(false);
});
