import { execFileSync, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { asOthers, giveWay, letGoFirst, runIdle } from './sched.ts';

const SCHED_IDLE = 5;

it('lets others go first, and takes it back; leaves an ended process alone', () => {
  const child = spawn('sleep', ['60']);
  const pid = child.pid as number;
  try {
    const before = sched(pid);
    letGoFirst(pid);
    if (before['se.slice'] !== undefined) expect(sched(pid)['se.slice']).toBeGreaterThan(before['se.slice']);
    asOthers(pid);
    expect(sched(pid)).toEqual(before);
    expect(runIdle(pid)).toBe(true);
    expect(policyOf(pid)).toBe(SCHED_IDLE);
  } finally {
    child.kill('SIGKILL');
  }
  expect(runIdle(2 ** 30)).toBe(false);
  letGoFirst(2 ** 30);
});

it('gives way only where that can be taken back, with every thread', () => {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 60_000)']);
  const pid = child.pid as number;
  const policies = () => new Set(readdirSync(`/proc/${pid}/task`).map((tid) => policyOf(Number(tid))));
  try {
    giveWay(pid);
    expect([...policies()]).toEqual([mayLeaveIdle() ? SCHED_IDLE : 0]);
    asOthers(pid);
    expect([...policies()]).toEqual([0]);
  } finally {
    child.kill('SIGKILL');
  }
});

it.runIf(groupOf(process.pid) !== undefined)(
  'makes the share of a session of its own small, and of none that others are in',
  () => {
    const own = spawn('sleep', ['60'], { detached: true });
    const ours = spawn('sleep', ['60']);
    const [pid, beside] = [own.pid as number, ours.pid as number];
    try {
      letGoFirst(pid);
      expect(groupOf(pid)).toBe(10);
      asOthers(pid);
      expect(groupOf(pid)).toBe(0);
      runIdle(pid);
      expect(groupOf(pid)).toBe(19);
      const before = groupOf(beside);
      runIdle(beside);
      expect(groupOf(beside)).toBe(before);
    } finally {
      own.kill('SIGKILL');
      ours.kill('SIGKILL');
    }
  },
);

it('keeps a nice process nice', () => {
  const child = spawn('nice', ['-n', '7', 'sleep', '60']);
  const pid = child.pid as number;
  try {
    for (let n = 0; nice(pid) !== 7 && n < 1_000; n++) execFileSync('true');
    letGoFirst(pid);
    asOthers(pid);
    expect(nice(pid)).toBe(7);
  } finally {
    child.kill('SIGKILL');
  }
});

/** Kernels without CONFIG_SCHED_DEBUG have no such file. */
function sched(pid: number): Record<string, number> {
  try {
    const lines = readFileSync(`/proc/${pid}/sched`, 'latin1').matchAll(/^(policy|prio|se\.slice)\s*:\s*(\d+)$/gm);
    return Object.fromEntries([...lines].map(([, name, value]) => [name, Number(value)]));
  } catch {
    return {};
  }
}

function field(pid: number, at: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[at - 3]);
}

/** The nice value of its autogroup; a kernel without the feature has no such file. */
function groupOf(pid: number): number | undefined {
  try {
    return Number(/nice (-?\d+)/.exec(readFileSync(`/proc/${pid}/autogroup`, 'latin1'))?.[1]);
  } catch {
    return undefined;
  }
}

/** proc_pid_stat(5), 41 and 19. */
const policyOf = (pid: number) => field(pid, 41);
const nice = (pid: number) => field(pid, 19);

/** capabilities(7): CAP_SYS_NICE is 23; the tests are not told of an RLIMIT_NICE. */
function mayLeaveIdle(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? '0';
  return (BigInt(`0x${effective}`) & (1n << 23n)) !== 0n;
}
