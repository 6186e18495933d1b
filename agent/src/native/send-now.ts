import { libc, must } from './libc.ts';

const POLLOUT = 4;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/**
 * Puts a few bytes into a stream socket's send buffer, past whoever else writes there: all of them, or none (`later`).
 * The kernel calls a TCP socket writable only while a good part of its buffer is free (sk_stream_is_writeable), so few
 * bytes are never cut. For small data only.
 */
export function sendNow(fd: number, data: Buffer): 'sent' | 'later' {
  const set = Buffer.alloc(8);
  set.writeInt32LE(fd, 0);
  set.writeInt16LE(POLLOUT, 4);
  if (must('poll', libc().poll(set, 1, 0)) !== 1 || set.readInt16LE(6) !== POLLOUT) return 'later';
  const header = {
    msg_name: null,
    msg_namelen: 0,
    msg_iov: [{ iov_base: data, iov_len: data.length }],
    msg_iovlen: 1,
    msg_control: null,
    msg_controllen: 0,
    msg_flags: 0,
  };
  const sent = must('sendmsg', Number(libc().sendmsg(fd, header, MSG_DONTWAIT | MSG_NOSIGNAL)));
  if (sent !== data.length) throw new Error(`sendmsg: ${sent} of ${data.length} bytes on a writable socket`);
  return 'sent';
}
