import type { ServerHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';

/** GOAWAY on stream 0 with last stream id 2^31-1 and NO_ERROR (RFC 9113 6.8): "open no more streams; all of yours are served". */
const NOTICE = Buffer.from([0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
const PING_AGAIN_MS = 1_000;

/**
 * Ends an HTTP/2 session as RFC 9113 6.8 asks for: a notice first, then, when the client has certainly seen it (it answered
 * a PING sent after it), the final GOAWAY. Streams that the client began before it saw the notice are served. The session
 * closes itself when its last stream has ended. A client that answers no PING keeps its session: the drain's bound ends it.
 *
 * The notice is written to the socket by hand. Node has no call for it, and `session.goaway(0, 2 ** 31 - 1)` is none: nghttp2
 * ignores every stream that comes after a GOAWAY of its own (nghttp2_session.c, session_allow_incoming_new_stream), so
 * streams on their way were lost. Node hands whole frames to the socket, and libuv keeps the order of writes, so the
 * notice stands between two frames.
 *
 * Over TLS (`plain` undefined) there is no such way: TLSWrap takes one write at a time and ends the process on a second.
 * There the final GOAWAY is sent at once, and a stream that is on its way then is one that the client knows was not processed,
 * and may send again.
 */
export function farewell(session: ServerHttp2Session, plain: Socket | undefined): void {
  if (session.closed || session.destroyed) return;
  // The first frame of a server is SETTINGS: nothing may go before it.
  if (session.pendingSettingsAck) {
    session.once('localSettings', () => farewell(session, plain));
    return;
  }
  if (plain === undefined) {
    session.close();
    return;
  }
  if (plain.writable) plain.write(NOTICE);
  finalAfterPing(session);
}

function finalAfterPing(session: ServerHttp2Session): void {
  if (session.closed || session.destroyed) return;
  const sent = session.ping((error) => {
    if (error === null && !session.closed && !session.destroyed) session.close();
  });
  // As many PINGs as are allowed are on their way already.
  if (!sent) setTimeout(() => finalAfterPing(session), PING_AGAIN_MS).unref();
}
