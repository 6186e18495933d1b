import diagnostics from 'node:diagnostics_channel';
import http2 from 'node:http2';
import { ID_HEADER } from '../upstream/answers.ts';

const { NGHTTP2_REFUSED_STREAM } = http2.constants;

interface Goaway {
  readonly at: number;
  readonly lastStreamId: number;
}

/**
 * Which streams the HTTP/2 library refused before it sent them, by request id; from Node's diagnostics channel, so that it
 * holds for libraries on top of node:http2 (gRPC), which do not tell. nghttp2 closes a stream that it had queued when GOAWAY
 * came with REFUSED_STREAM and has not sent it (RFC 9113 8.7 lets a client try it again); a stream above GOAWAY's last id
 * was sent and refused by the server: that is a failure to us.
 */
export class RefusedStreams {
  private readonly goaways = new WeakMap<http2.Http2Session, Goaway>();
  private readonly watched = new WeakSet<http2.Http2Session>();
  private readonly refused = new Set<string>();
  private readonly listener = (message: unknown) => {
    const { stream, headers } = message as { stream: http2.ClientHttp2Stream; headers: Record<string, unknown> };
    this.add(stream, String(headers[ID_HEADER] ?? ''));
  };

  constructor() {
    diagnostics.subscribe('http2.client.stream.created', this.listener);
  }

  close(): void {
    diagnostics.unsubscribe('http2.client.stream.created', this.listener);
  }

  /** True once for each id that was refused before it was sent. */
  take(id: string): boolean {
    return this.refused.delete(id);
  }

  private add(stream: http2.ClientHttp2Stream, id: string): void {
    const session = stream.session;
    if (session === undefined || id === '') return;
    if (!this.watched.has(session)) {
      this.watched.add(session);
      session.once('goaway', (_code: number, lastStreamId: number) => {
        this.goaways.set(session, { at: Date.now(), lastStreamId });
      });
    }
    // Before the library's own listener, so that the id is known when the call's end is told.
    stream.prependOnceListener('close', () => {
      if (neverSent(stream, this.goaways.get(session)?.lastStreamId)) this.refused.add(id);
    });
  }
}

/** `lastStreamId`: of the GOAWAY that came on the stream's session, if one came. */
export function neverSent(stream: http2.ClientHttp2Stream, lastStreamId: number | undefined): boolean {
  if (lastStreamId === undefined) return false;
  if (stream.id === undefined || stream.pending) return true;
  return stream.rstCode === NGHTTP2_REFUSED_STREAM && stream.id <= lastStreamId;
}
