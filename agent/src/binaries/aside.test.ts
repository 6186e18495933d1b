import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { idleFirst, runAside } from './aside.ts';

it('runs it in what others leave, and says what it said', async () => {
  const policy = 'process.stdout.write(require("fs").readFileSync("/proc/self/stat", "latin1"))';
  // The scheduler's policy (proc_pid_stat(5), 41) when it ends, that is long after it was set.
  const { stdout } = await runAside(process.execPath, ['-e', `setTimeout(() => ${policy}, 200)`], {
    timeoutMs: 20_000,
  });
  expect(Number(fieldsOf(stdout)[38])).toBe(5);
  expect(Number(fieldsOf(readFileSync('/proc/self/stat', 'latin1'))[38])).toBe(0);
});

it('rejects as it failed, with what it said', async () => {
  const failing = runAside('/bin/sh', ['-c', 'echo no >&2; exit 3'], { timeoutMs: 20_000 });
  await expect(failing).rejects.toMatchObject({ code: 3, stderr: 'no\n' });
});

it('works as an equal where nothing is left, and asks no more for a while', async () => {
  const tries: (number | undefined)[] = [];
  const starved = async (idleMs: number | undefined) => {
    tries.push(idleMs);
    return idleMs === undefined ? 'done' : undefined;
  };
  expect([await idleFirst(starved), await idleFirst(starved)]).toEqual(['done', 'done']);
  expect(tries).toEqual([3_000, undefined, undefined]);
});

function fieldsOf(stat: string): string[] {
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}
