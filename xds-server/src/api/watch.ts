import { encodeLine, SluiceError, type WatchItem } from '@sluice/contract';
import type { FastifyInstance } from 'fastify';
import type { Hub } from './hub.ts';

const PING_MS = 10_000;
const MAX_WATCHERS = 200;
/** A watcher that does not read is ended; it comes back and gets everything anew. */
const MAX_UNSENT_BYTES = 8 * 1024 * 1024;

/** GET /watch: NDJSON, everything known first, then each change. */
export function watchRoute(api: FastifyInstance, hub: Hub, everything: () => AsyncIterable<WatchItem>): void {
  api.get('/watch', async (_request, reply) => {
    if (hub.size >= MAX_WATCHERS) throw new SluiceError('TOO_LARGE', `expected at most ${MAX_WATCHERS} watchers`);
    reply.hijack();
    const out = reply.raw;
    out.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
    const write = (item: WatchItem): void => {
      if (out.destroyed) return;
      if (out.writableLength > MAX_UNSENT_BYTES) out.destroy();
      else out.write(encodeLine(item));
    };
    // What changes while everything is being sent comes after it, so that no old view replaces a newer one.
    let early: WatchItem[] | undefined = [];
    const stop = hub.watch((item) => (early === undefined ? write(item) : early.push(item)));
    const ping = setInterval(() => write({ kind: 'ping' }), PING_MS);
    out.on('close', () => {
      clearInterval(ping);
      stop();
    });
    out.on('error', () => out.destroy());
    try {
      for await (const item of everything()) write(item);
      for (const item of early) write(item);
      early = undefined;
      write({ kind: 'synced' });
    } catch {
      out.destroy();
    }
  });
}
