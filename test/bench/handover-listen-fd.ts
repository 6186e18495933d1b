import { fileURLToPath } from 'node:url';
import { claimBlock } from '../harness/ports.ts';
import { type Child, start } from '../harness/process.ts';
import type { Side } from './handover-sides.ts';

/** The old server ends this long after the take-over: later than all requests, with silent connections left. */
const MAX_DRAIN_MS = 7_500;

/** A Node server on the published helper: the next one takes its listen sockets. It answers itself, there is no upstream. */
export async function listenFdSide(): Promise<Side> {
  const block = await claimBlock();
  const [port, http2Port] = [await block.port(), await block.port()];
  const config = {
    dir: block.dir,
    http1: [`127.0.0.1:${port}`],
    http2: [`127.0.0.1:${http2Port}`],
    maxDrainMs: MAX_DRAIN_MS,
  };
  const main = fileURLToPath(new URL('../harness/listen-fd-server.ts', import.meta.url));
  const seen = new Map<string, number>();
  const onLine = (text: string) => {
    if (!text.startsWith('{"event":"drained"')) return;
    for (const id of (JSON.parse(text) as { seen: string[] }).seen) seen.set(id, (seen.get(id) ?? 0) + 1);
  };
  const launch = () =>
    start(process.execPath, ['--conditions=sluice-source', main, JSON.stringify(config)], {
      name: 'server',
      ready: /"event":"serving"/,
      onLine,
    });
  let serving: Child = await launch();
  return {
    port,
    http2Port,
    async handOver() {
      const old = serving;
      serving = await launch();
      return old.pid;
    },
    async settled() {},
    async twice() {
      return [...seen.values()].filter((count) => count > 1).length;
    },
    async stop() {
      await serving.stop();
      await block.release();
    },
  };
}
