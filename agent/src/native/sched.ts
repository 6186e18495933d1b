import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { libc } from './libc.ts';

/**
 * How a process stands beside the Envoy that serves on the same cores (sched(7), sched_setattr(2)). All of it is allowed
 * without a right, but only the slice can be taken back without one. Where the kernel or a seccomp profile does not
 * know the call nothing happens: it is a courtesy, no condition.
 *
 * Where processes are not put into groups by somebody else (a container's cgroup), the kernel makes a group of each
 * session, and shares a core between these first: what is told of a thread counts only among those of its session
 * (sched(7), "The autogroup feature"). A group's share can be made small and taken back without a right
 * (kernel/sched/autogroup.c, proc_sched_autogroup_set_nice). Only a process that leads its session speaks for the group, or
 * one that was given a session of its own.
 */
const SCHED_NORMAL = 0;
const SCHED_IDLE = 5;
const KEEP_POLICY = 0x08n;
const ATTR_BYTES = 48;
const SYS_SCHED_SETATTR = process.arch === 'arm64' ? 274n : 314n;
/**
 * The longest that the kernel takes. A task with a long slice gets the same share of the core, but one that wakes with a
 * shorter one goes first (EEVDF, Linux 6.12 and later; earlier kernels ignore it).
 */
const LONG_SLICE_NS = 100_000_000n;

/** Shares of 1024: a fiftieth, a tenth (kernel/sched/core.c, sched_prio_to_weight). */
const GROUP_IDLE = 19;
const GROUP_BEHIND = 10;

/** Runs only while nobody else wants the core: for a check that somebody waits for, but no request does. 0 = this thread. */
export function runIdle(pid: number): boolean {
  setGroup(pid, GROUP_IDLE);
  return setAttr(pid, SCHED_IDLE, 0n, 0n);
}

/** Lets those go first that wake for a request: every thread that the process has now, and what these start. */
export function letGoFirst(pid: number): void {
  setGroup(pid, GROUP_BEHIND);
  for (const tid of threadsOf(pid)) setAttr(tid, SCHED_NORMAL, KEEP_POLICY, LONG_SLICE_NS);
}

/** Takes `letGoFirst` back, for every thread that the process has now. */
export function asOthers(pid: number): void {
  setGroup(pid, 0);
  for (const tid of threadsOf(pid)) setAttr(tid, SCHED_NORMAL, KEEP_POLICY, 0n);
}

function setGroup(pid: number, nice: number): void {
  try {
    const session = sessionOf(pid);
    // A group that others are in, or one that this process is in and does not lead, is not for it to speak of.
    if (session !== pid && session === sessionOf(process.pid)) return;
    writeFileSync(`/proc/${pid}/autogroup`, String(nice));
  } catch {
    // No such feature, no such process, or not ours.
  }
}

/** proc_pid_stat(5), field 6. */
function sessionOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[3]);
}

function threadsOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).map(Number);
  } catch {
    return []; // it has ended
  }
}

/** struct sched_attr (include/uapi/linux/sched/types.h): size, policy, flags, nice, priority, runtime, deadline, period. */
function setAttr(pid: number, policy: number, flags: bigint, runtimeNs: bigint): boolean {
  const attr = Buffer.alloc(ATTR_BYTES);
  attr.writeUInt32LE(ATTR_BYTES, 0);
  attr.writeUInt32LE(policy, 4);
  attr.writeBigUInt64LE(flags, 8);
  attr.writeBigUInt64LE(runtimeNs, 24);
  try {
    // The call sets it as well, and a lower one needs a right.
    attr.writeInt32LE(getPriority(pid), 16);
    return libc().syscallPointer(SYS_SCHED_SETATTR, BigInt(pid), attr, 0n) === 0;
  } catch {
    return false;
  }
}
