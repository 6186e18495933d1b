import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import { askPath } from './upstream/answers.ts';

const REQUESTS = 2_000;
const AT_ONCE = 8;
const PATH = askPath({ size: 10 });

/** Some requests to a server's Unix socket, a few at once. They carry no id: nobody counts them. */
export function askHttp1(socketPath: string): Promise<void> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: AT_ONCE });
  return inTurns(async () => {
    const [response] = await once(http.get({ socketPath, path: PATH, agent }), 'response');
    response.resume();
    await once(response, 'end');
  }).finally(() => agent.destroy());
}

export async function askHttp2(socketPath: string): Promise<void> {
  const session = http2.connect('http://warm-up', { createConnection: () => net.connect(socketPath) });
  try {
    await inTurns(async () => {
      const stream = session.request({ ':path': PATH });
      stream.resume();
      await once(stream, 'end');
    });
  } finally {
    session.destroy();
  }
}

async function inTurns(ask: () => Promise<void>): Promise<void> {
  let left = REQUESTS;
  const turns = Array.from({ length: AT_ONCE }, async () => {
    while (left-- > 0) await ask();
  });
  await Promise.all(turns);
}
