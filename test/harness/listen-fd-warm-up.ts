import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import type { WarmUpAddress } from '@sluice/agent/listen-fd';
import { askPath } from './upstream/answers.ts';

const REQUESTS = 2_000;
const SESSIONS = 10;
const AT_ONCE = 8;
const FRESH_EVERY = 5;
const PATH = askPath({ size: 10 });

/** Some requests to a server, a few at once. They carry no id: nobody counts them. */
export function askHttp1(address: WarmUpAddress): Promise<void> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: AT_ONCE });
  return inTurns(async (n) => {
    // Some by connections of their own: those are opened and closed by other code.
    const [response] = await once(
      http.get({ ...address, path: PATH, agent: n % FRESH_EVERY === 0 ? false : agent }),
      'response',
    );
    response.resume();
    await once(response, 'end');
  }).finally(() => agent.destroy());
}

export async function askHttp2(address: WarmUpAddress): Promise<void> {
  // One after the other: connections begin and end as well.
  for (let i = 0; i < SESSIONS; i++) {
    const session = http2.connect('http://warm-up', { createConnection: () => net.connect(address) });
    try {
      await inTurns(async () => {
        const stream = session.request({ ':path': PATH });
        stream.resume();
        await once(stream, 'end');
      }, REQUESTS / SESSIONS);
    } finally {
      session.destroy();
    }
  }
}

async function inTurns(ask: (n: number) => Promise<void>, requests = REQUESTS): Promise<void> {
  let left = requests;
  const turns = Array.from({ length: AT_ONCE }, async () => {
    while (left > 0) await ask(left--);
  });
  await Promise.all(turns);
}
