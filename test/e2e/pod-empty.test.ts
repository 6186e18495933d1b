import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { listenFds } from '@sluice/agent/native/listeners';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { start } from '../harness/process.ts';

const SOURCE = path.join(import.meta.dirname, '../../deploy/empty/empty.c');
const STRICT = ['-std=c11', '-Os', '-s', '-static', '-Wall', '-Wextra', '-Werror'];
const able = attempt(() =>
  execFileSync('cc', ['-static', '-x', 'c', '-o', '/dev/null', '-'], { input: 'int main(void) { return 0; }' }),
);

let folder: string;
let program: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'sluice-empty-'));
  program = path.join(folder, 'sluice');
  if (able) execFileSync('cc', [...STRICT, '-o', program, SOURCE]);
});
afterAll(() => rmSync(folder, { recursive: true }));

function run(...args: string[]): Promise<{ exit: number; out: string; err: string }> {
  return new Promise((resolve) => {
    execFile(program, args, { timeout: 5_000 }, (error, out, err) =>
      resolve({ exit: error === null ? 0 : Number(error.code ?? -1), out, err }),
    );
  });
}

describe.runIf(able)('the Empty image', () => {
  test('hooks and exec probes of the sidecar end at once with 0', async () => {
    for (const args of [['wait'], ['wait', '--timeout', '2m'], ['prestop'], ['status', '-o', 'json']]) {
      expect(await run('agent', ...args)).toMatchObject({ exit: 0, err: '' });
    }
  });

  test('what the sidecar has and this has not is refused', async () => {
    expect(await run('controller')).toMatchObject({ exit: 2, out: '' });
    expect(await run()).toMatchObject({ exit: 2 });
  });

  test('the container’s command stays, listens nowhere, and ends at once with 0 on SIGTERM, as process 1 too', async () => {
    const args = ['agent', '--proxy', 'edge', '--status-address', '0.0.0.0:15021'];
    const alone = attempt(() => execFileSync('unshare', ['-p', '-f', '--mount-proc', 'true']));
    const within = alone ? ['unshare', '-p', '-f', '--mount-proc', '--kill-child=SIGKILL'] : [];
    const [command = '', ...rest] = [...within, program, ...args];
    const child = await start(command, rest, { name: 'empty', ready: /waits for the next version/ });
    const pid = alone
      ? Number(readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim())
      : child.pid;
    expect(listenFds(pid)).toEqual([]);
    process.kill(pid, 'SIGTERM');
    expect(await child.ended).toEqual({ code: 0, signal: null });
  });

  test('one static program of a few hundred kB', () => {
    expect(statSync(program).size).toBeLessThan(1_000_000);
    expect(execFileSync('file', ['-b', program], { encoding: 'utf8' })).toContain('statically linked');
  });
});

function attempt(command: () => void): boolean {
  try {
    command();
    return true;
  } catch {
    console.log('left out: a compiler or unshare is missing here');
    return false;
  }
}
