import { once } from 'node:events';
import http2 from 'node:http2';
import type { AddressInfo } from 'node:net';

export interface HeldRequest {
  /** The client's port. */
  readonly local: number;
  /** Of the answer; 0 when there was none. */
  readonly status: Promise<number>;
  letGo(): void;
  close(): void;
}

/** An HTTP/2 request to a mesh that is answered when it is let go, on a connection of its own: its body does not end before. */
export async function held(port: number): Promise<HeldRequest> {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  session.on('error', () => undefined);
  await once(session, 'remoteSettings');
  const stream = session.request({ ':method': 'POST', ':path': '/' });
  const status = new Promise<number>((resolve) => {
    stream.on('response', (headers) => resolve(Number(headers[':status'])));
    stream.on('error', () => resolve(0));
    stream.on('close', () => resolve(0));
  });
  stream.resume().write('begun');
  return {
    local: (session.socket.address() as AddressInfo).port,
    status,
    letGo: () => stream.end(),
    close: () => session.destroy(),
  };
}
