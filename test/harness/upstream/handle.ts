import { fileURLToPath } from 'node:url';
import type { Block } from '../ports.ts';
import { type Child, start } from '../process.ts';
import type { UpstreamPorts } from './server.ts';

export interface UpstreamHandle {
  readonly ports: UpstreamPorts;
  readonly child: Child;
  /** How often each request id was seen, by now. */
  seen(): Promise<Map<string, number>>;
  stop(): Promise<void>;
}

/** For what stands beside a proxy that is measured. Short collections, and few: its own pauses are no latency of the proxy. */
export const SMALL_HEAP = ['--min-semi-space-size=1', '--max-semi-space-size=1', '--initial-old-space-size=512'];

/** The upstream in a process of its own, so that its work does not delay the clients' clock. */
export async function spawnUpstream(block: Block): Promise<UpstreamHandle> {
  const ports: UpstreamPorts = {
    http: await block.port(),
    http2: await block.port(),
    grpc: await block.port(),
    tcp: await block.port(),
    control: await block.port(),
  };
  const main = fileURLToPath(new URL('./main.ts', import.meta.url));
  const args = ['--conditions=sluice-source', ...SMALL_HEAP, main, JSON.stringify(ports)];
  const child = await start(process.execPath, args, { name: 'upstream', ready: /upstream ready/ });
  return {
    ports,
    child,
    async seen() {
      const response = await fetch(`http://127.0.0.1:${ports.control}/`, { signal: AbortSignal.timeout(20_000) });
      return parseSeen(await response.text());
    },
    stop: () => child.stop(),
  };
}

export function parseSeen(text: string): Map<string, number> {
  const seen = new Map<string, number>();
  for (const line of text.split('\n')) {
    const space = line.lastIndexOf(' ');
    if (space > 0) seen.set(line.slice(0, space), Number(line.slice(space + 1)));
  }
  return seen;
}
