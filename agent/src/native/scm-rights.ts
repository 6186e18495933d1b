/**
 * Descriptors in the control part of a message (SCM_RIGHTS, cmsg(3)), 64 bit: 8 bytes length, 4 level, 4 type, then the
 * descriptors as 32-bit numbers, padded to 8.
 */
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const CMSG_HEADER = 16;

/** Room for `count` descriptors in a message that is received. */
export function controlRoom(count: number): Buffer {
  return Buffer.alloc(CMSG_HEADER + 4 * count + 16);
}

/** The control part that carries them; null for none, as sendmsg wants it. */
export function encodeRights(fds: readonly number[]): Buffer | null {
  if (fds.length === 0) return null;
  const control = Buffer.alloc(CMSG_HEADER + ((4 * fds.length + 7) & ~7));
  control.writeBigUInt64LE(BigInt(CMSG_HEADER + 4 * fds.length), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  for (const [i, each] of fds.entries()) control.writeInt32LE(each, CMSG_HEADER + 4 * i);
  return control;
}

/** The descriptors of a received control part. They are open in this process: use or close each. */
export function decodeRights(control: Buffer): number[] {
  const fds: number[] = [];
  for (let at = 0; at + CMSG_HEADER <= control.length; ) {
    const length = Number(control.readBigUInt64LE(at));
    if (length < CMSG_HEADER || at + length > control.length) break;
    if (control.readInt32LE(at + 8) === SOL_SOCKET && control.readInt32LE(at + 12) === SCM_RIGHTS) {
      for (let i = at + CMSG_HEADER; i + 4 <= at + length; i += 4) fds.push(control.readInt32LE(i));
    }
    at += (length + 7) & ~7;
  }
  return fds;
}
