import { mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import type { Block } from './ports.ts';
import { staticBootstrap } from './static-bootstrap.ts';

export interface StaticProxy {
  /** Where Envoy is to listen. */
  readonly port: number;
  readonly upstreamPort: number;
  /** File of a bootstrap without a controller. */
  readonly bootstrap: string;
  /** An agent's run folder, made. */
  readonly dir: string;
  /** Ends the upstream, not what runs in the run folder. */
  close(): void;
}

/** What a lone agent's Envoy needs in `block`: an upstream that answers, a bootstrap that leads there, a run folder. */
export async function staticProxy(
  block: Block,
  answer: http.RequestListener = (_, response) => response.end('done\n'),
): Promise<StaticProxy> {
  const [port, upstreamPort] = [await block.port(), await block.port()];
  const upstream = http.createServer(answer);
  upstream.keepAliveTimeout = 60_000; // or Envoy meets a connection of its pool that the upstream closed a moment ago
  await new Promise<void>((resolve) => upstream.listen(upstreamPort, '127.0.0.1', resolve));
  const bootstrap = path.join(block.dir, 'envoy.json');
  writeFileSync(bootstrap, JSON.stringify(staticBootstrap(port, upstreamPort)));
  const dir = path.join(block.dir, 'run');
  mkdirSync(dir);
  return { port, upstreamPort, bootstrap, dir, close: () => void upstream.close().closeAllConnections() };
}
