import { setTimeout as delay } from 'node:timers/promises';
import { check, libc, must } from './libc.ts';

/**
 * Which listen socket of a SO_REUSEPORT group gets a new connection: by a classic BPF program (socket(7),
 * SO_ATTACH_REUSEPORT_CBPF), for which no privilege is needed. It belongs to the group and not to the process that
 * attached it, works through any socket of the group, and answers with an index into the group's sockets. Their order
 * (net/core/sock_reuseport.c): listen() appends; a socket that leaves is replaced by the last one. An index that is out
 * of range means the ordinary choice, by hash.
 */
const SOL_SOCKET = 1;
const SO_ATTACH_FILTER = 26;
const SO_ATTACH_REUSEPORT_CBPF = 51;
const SO_BINDTOIFINDEX = 62;
const SO_DETACH_REUSEPORT_BPF = 68;
const NO_INTERFACE = 0x7fff_ffff;
const IPPROTO_TCP = 6;
const TCP_INFO = 11;
const TCP_INFO_SIZE = 104;
/** tcp_info.tcpi_unacked: of a listen socket, the connections in its accept queue. */
const UNACKED_AT = 24;
const SYS_MEMBARRIER = process.arch === 'arm64' ? 283 : 324;
const MEMBARRIER_CMD_GLOBAL = 1;
/** Where there is no membarrier: many times what the kernel needs to handle one packet. */
const GRACE_MS = 20;

// linux/filter.h
const LD_W_ABS = 0x20;
const MOD_K = 0x94;
const JEQ_K = 0x15;
const RET_K = 0x06;
const SKF_AD_RANDOM = 0xffff_f000 + 56;
const INSTRUCTION = 8;
/** BPF_MAXINSNS is 4,096: two for each socket, and three. */
const MAX_SOCKETS = 2_000;

/** The program that spreads new connections evenly over the sockets with these indices. Exported for its tests. */
export function steeringProgram(indices: readonly number[]): Buffer {
  const [first] = indices;
  if (first === undefined || indices.length > MAX_SOCKETS) {
    throw new Error(`expected 1 to ${MAX_SOCKETS} sockets to steer to, found ${indices.length}`);
  }
  const code: [code: number, jt: number, jf: number, k: number][] = [];
  if (indices.length > 1) {
    code.push([LD_W_ABS, 0, 0, SKF_AD_RANDOM], [MOD_K, 0, 0, indices.length]);
    for (const [i, index] of indices.entries()) if (i > 0) code.push([JEQ_K, 0, 1, i], [RET_K, 0, 0, index]);
  }
  code.push([RET_K, 0, 0, first]);
  const program = Buffer.alloc(code.length * INSTRUCTION);
  for (const [i, [op, jt, jf, k]] of code.entries()) {
    program.writeUInt16LE(op, i * INSTRUCTION);
    program.writeUInt8(jt, i * INSTRUCTION + 2);
    program.writeUInt8(jf, i * INSTRUCTION + 3);
    program.writeUInt32LE(k, i * INSTRUCTION + 4);
  }
  return program;
}

/** From now on new connections of this socket's group go to the sockets with these indices. Replaces an earlier program. */
export function steer(fd: number, indices: readonly number[]): void {
  attach(fd, SO_ATTACH_REUSEPORT_CBPF, steeringProgram(indices));
}

/**
 * A listen socket that neither takes nor refuses: every SYN to it is dropped, and the client sends it again after a
 * second. For one that nobody will accept on any more, until another socket listens there.
 */
export function silence(fd: number): void {
  const nothing = Buffer.alloc(INSTRUCTION);
  nothing.writeUInt16LE(RET_K, 0);
  attach(fd, SO_ATTACH_FILTER, nothing);
}

/**
 * A listen socket that no packet finds any more; to be used a grace period before it closes. The kernel comes to a group
 * by the first of its sockets that it finds (over IPv6 the oldest, over IPv4 the newest), and when that one has just left
 * its group, it is taken itself: the SYN is lost (net/ipv4/inet_hashtables.c, inet_lhash2_lookup; one in some 10,000
 * closes at 12,000 new connections a second). One that is bound to an interface which does not exist is passed over.
 */
export function hide(fd: number): void {
  const index = Buffer.alloc(4);
  index.writeInt32LE(NO_INTERFACE);
  // One that is bound to an interface already is not ours to move without privilege: then it has that small risk.
  check('setsockopt', libc().setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, index, 4), 'EPERM');
}

function attach(fd: number, option: number, program: Buffer): void {
  const { koffi, setsockopt } = libc();
  // struct sock_fprog: u16 len, then a pointer.
  const fprog = Buffer.alloc(16);
  fprog.writeUInt16LE(program.length / INSTRUCTION, 0);
  fprog.writeBigUInt64LE(BigInt(koffi.address(program)), 8);
  must('setsockopt', setsockopt(fd, SOL_SOCKET, option, fprog, fprog.length));
}

/** The ordinary choice again; that no program is attached is no error. */
export function unsteer(fd: number): void {
  const { koffi, setsockopt } = libc();
  const result = setsockopt(fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, Buffer.alloc(4), 4);
  if (result < 0 && koffi.errno() !== koffi.os.errno.ENOENT) must('setsockopt', result);
}

/** Connections that wait in the accept queue of a listen socket. */
export function waiting(fd: number): number {
  const info = Buffer.alloc(TCP_INFO_SIZE);
  const size = Buffer.alloc(4);
  size.writeInt32LE(info.length);
  must('getsockopt', libc().getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, size));
  return info.readUInt32LE(UNACKED_AT);
}

/**
 * Resolves when no packet is being handled any more by what was in force at the call: membarrier(2) waits for a grace
 * period of the kernel's RCU, under which a program and its group are read (measured: 5 to 35 ms).
 */
export async function gracePeriod(): Promise<void> {
  const done = await new Promise<boolean>((resolve) => {
    libc().syscall.async(SYS_MEMBARRIER, MEMBARRIER_CMD_GLOBAL, 0, 0, (error: unknown, result: number | bigint) =>
      resolve(!error && Number(result) === 0),
    );
  });
  if (!done) await delay(GRACE_MS);
}
