import type { ServerHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';
import { sendNow } from '../native/send-now.ts';

/** GOAWAY on stream 0 with last stream id 2^31-1 and NO_ERROR (RFC 9113 6.8): "open no more streams; all of yours are served". */
const NOTICE = Buffer.from([0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
const PING_AGAIN_MS = 1_000;
const FIRST_LOOK_MS = 5;
const LOOK_MS = 200;
/** A client that leaves no moment between its downloads for this long gets the final GOAWAY alone. */
const NOTICE_BOUND_MS = 30_000;

/**
 * Ends an HTTP/2 session as RFC 9113 6.8 asks for: a notice first, then, when the client has certainly seen it (it answered
 * a PING sent after it), the final GOAWAY. Streams that the client began before it saw the notice are served. The session
 * closes itself when its last stream has ended. A client that answers no PING keeps its session: the drain's bound ends it.
 *
 * The notice is written to the socket by hand. Node has no call for it, and `session.goaway(0, 2 ** 31 - 1)` is none: nghttp2
 * ignores every stream that comes after a GOAWAY of its own (nghttp2_session.c, session_allow_incoming_new_stream), so
 * streams on their way were lost.
 *
 * It goes straight to the kernel, and only when libuv holds nothing for this socket: then the last thing written was a whole
 * frame. Through `socket.write` it would be a second writer beside the session, and a write of it that has to wait ends the
 * process (node_http2.cc, OnStreamAfterWrite, `Assertion failed: is_write_in_progress()`; seen with a client that does not read).
 *
 * Over TLS (`plain` undefined) nobody but Node can write a record. There the final GOAWAY is sent at once, and a stream that
 * is on its way then is one that the client knows was not processed, and may send again.
 */
export function farewell(session: ServerHttp2Session, plain: Socket | undefined): void {
  if (session.closed || session.destroyed) return;
  // The first frame of a server is SETTINGS: nothing may go before it.
  if (session.pendingSettingsAck) session.once('localSettings', () => farewell(session, plain));
  else if (plain === undefined) session.close();
  else notice(session, plain, performance.now() + NOTICE_BOUND_MS, FIRST_LOOK_MS);
}

function notice(session: ServerHttp2Session, plain: Socket, until: number, lookMs: number): void {
  if (session.closed || session.destroyed) return;
  if (written(plain)) finalAfterPing(session);
  else if (performance.now() > until) session.close();
  // The session's writes have no event for us.
  else setTimeout(() => notice(session, plain, until, Math.min(lookMs * 2, LOOK_MS)), lookMs).unref();
}

function written(plain: Socket): boolean {
  const { fd, writeQueueSize } =
    (plain as unknown as { _handle?: { fd?: unknown; writeQueueSize?: unknown } })._handle ?? {};
  if (typeof fd !== 'number' || fd < 0 || writeQueueSize !== 0) return false;
  try {
    return sendNow(fd, NOTICE) === 'sent';
  } catch {
    plain.destroy(); // the client has gone
    return false;
  }
}

function finalAfterPing(session: ServerHttp2Session): void {
  if (session.closed || session.destroyed) return;
  const sent = session.ping((error) => {
    if (error === null && !session.closed && !session.destroyed) session.close();
  });
  // As many PINGs as are allowed are on their way already.
  if (!sent) setTimeout(() => finalAfterPing(session), PING_AGAIN_MS).unref();
}
