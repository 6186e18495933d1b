import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { libc } from './libc.ts';

/**
 * How a process stands beside the Envoy that serves on the same cores (sched(7), sched_setattr(2)). Where the kernel or a
 * seccomp profile does not know the call nothing happens: it is a courtesy, no condition.
 *
 * A long slice (`letGoFirst`) can be taken back without a right. SCHED_IDLE is more: a core with nothing else on it counts
 * as idle, so what wakes for a request is put there and runs at once (kernel/sched/fair.c, sched_idle_cpu). But leaving it
 * needs CAP_SYS_NICE or RLIMIT_NICE (kernel/sched/syscalls.c, user_check_sched_setscheduler), so `giveWay` uses it only
 * where that was tried.
 *
 * Where processes are not put into groups by somebody else (a container's cgroup), the kernel makes a group of each
 * session, and shares a core between these first: what is told of a thread counts only among those of its session
 * (sched(7), "The autogroup feature"). A group's share can be made small and taken back without a right
 * (kernel/sched/autogroup.c, proc_sched_autogroup_set_nice). Only a process that leads its session speaks for the group, or
 * one that was given a session of its own. Between groups it is the slice that decides who goes first, so the idle have a
 * long one too.
 */
const SCHED_NORMAL = 0;
const SCHED_IDLE = 5;
const KEEP_POLICY = 0x08n;
const ATTR_BYTES = 48;
const SYS_SCHED_SETATTR = process.arch === 'arm64' ? 274n : 314n;
const SYS_SCHED_GETSCHEDULER = process.arch === 'arm64' ? 120n : 145n;
/**
 * The longest that the kernel takes. A task with a long slice gets the same share of the core, but one that wakes with a
 * shorter one goes first (EEVDF, Linux 6.12 and later; earlier kernels ignore it).
 */
const LONG_SLICE_NS = 100_000_000n;

/** Shares of 1024: a fiftieth, a tenth (kernel/sched/core.c, sched_prio_to_weight). */
const GROUP_IDLE = 19;
const GROUP_BEHIND = 10;

/** Node's own name for it (src/inspector_agent.cc); `--disable-sigusr1` leaves it out. */
const SPARE_THREAD = 'SignalInspector';
const MAX_ROUNDS = 10;

/** Runs only while nobody else wants the core: for a check that somebody waits for, but no request does. 0 = this thread. */
export function runIdle(pid: number): boolean {
  setGroup(pid, GROUP_IDLE);
  return makeIdle(pid);
}

/** Lets those go first that wake for a request: every thread that the process has now, and what these start. */
export function letGoFirst(pid: number): void {
  setGroup(pid, GROUP_BEHIND);
  for (const tid of threadsOf(pid)) setAttr(tid, SCHED_NORMAL, KEEP_POLICY, LONG_SLICE_NS);
}

/**
 * `letGoFirst`, and only what others leave where `asOthers` can take that back: for a start that has time. Whoever calls it
 * bounds it, for on a machine that leaves nothing it would last for ever.
 */
export function giveWay(pid: number): void {
  if (!comesBack()) {
    letGoFirst(pid);
    return;
  }
  setGroup(pid, GROUP_IDLE);
  for (const tid of threadsOf(pid)) makeIdle(tid);
}

/** Takes both back, for every thread that the process has. */
export function asOthers(pid: number): void {
  setGroup(pid, 0);
  const ours = ownPolicy();
  for (let round = 0, again = true; again && round < MAX_ROUNDS; round++) {
    again = false;
    for (const tid of threadsOf(pid)) {
      const idle = ours !== SCHED_IDLE && policyOf(tid) === SCHED_IDLE;
      const done = setAttr(tid, SCHED_NORMAL, idle ? 0n : KEEP_POLICY, 0n);
      // What an idle one has started meanwhile is seen in the next round.
      again ||= idle && done;
    }
  }
}

function makeIdle(tid: number): boolean {
  setAttr(tid, SCHED_NORMAL, KEEP_POLICY, LONG_SLICE_NS);
  return setAttr(tid, SCHED_IDLE, 0n, 0n);
}

let policy: number | undefined;
let back: boolean | undefined;

/** What its user started this process with, as long as that is asked before anything is set. */
function ownPolicy(): number {
  policy ??= policyOf(process.pid);
  return policy;
}

/** Tried once, on a thread that only waits for SIGUSR1: without the right it stays idle, and nobody misses it. */
function comesBack(): boolean {
  if (ownPolicy() !== SCHED_NORMAL) return false;
  if (back === undefined) {
    const tid = threadsOf(process.pid).find((each) => nameOf(each) === SPARE_THREAD);
    back = tid !== undefined && setAttr(tid, SCHED_IDLE, 0n, 0n) && setAttr(tid, SCHED_NORMAL, 0n, 0n);
  }
  return back;
}

/** -1 where it can not be told. By the call itself: musl's sched_getscheduler only says ENOSYS. */
function policyOf(tid: number): number {
  try {
    return libc().syscall(SYS_SCHED_GETSCHEDULER, BigInt(tid), 0n, 0n);
  } catch {
    return -1;
  }
}

function nameOf(tid: number): string {
  try {
    return readFileSync(`/proc/${tid}/comm`, 'latin1').trim();
  } catch {
    return '';
  }
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
  return Number(statOf(pid)[6 - 3]);
}

/** The fields from the third on: the name before it may have spaces. */
function statOf(pid: number): string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
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
