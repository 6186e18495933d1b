import { mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { endEpochs, KeeperProcess } from '../harness/keeper.ts';
import { claimBlock } from '../harness/ports.ts';
import { type Child, start, until } from '../harness/process.ts';
import { startUpstream } from '../harness/upstream/server.ts';
import { type LoadResult, RedirectLoad } from './redirect-load.ts';
import { APP_GID, OUTSIDE, POD, PORTS, Pod, podBootstrap, WORLD } from './redirect-pod.ts';

/**
 * `redirect-main.ts FROM TO`, in a network and mount namespace of its own: an upgrade of a Pod's Envoy behind REDIRECT while
 * the world calls the app and the app calls the world. Writes one line of JSON.
 */
export interface RedirectResult {
  readonly inbound: LoadResult;
  readonly outbound: LoadResult;
  /** Connections that the old epoch held, by the listener that they came in by, and how many its reset cut. */
  readonly old: Readonly<Record<string, number>>;
  readonly cut: number;
}

const [from = '', to = ''] = process.argv.slice(2);
const block = await claimBlock();
const dir = path.join(block.dir, 'run');
const control = path.join(block.dir, 'app.sock');
let pod: Pod | undefined;
let app: Child | undefined;
let keeper: KeeperProcess | undefined;
try {
  pod = await Pod.create();
  mkdirSync(dir);
  const bootstrap = path.join(block.dir, 'envoy.json');
  writeFileSync(bootstrap, JSON.stringify(podBootstrap()));
  const world = await startUpstream({ ...OUTSIDE, http2: 9002, grpc: 9003, control: 9004, host: WORLD });
  const main = path.join(import.meta.dirname, 'redirect-app.ts');
  const [command = '', ...inside] = pod.inside;
  const gid = ['setpriv', '--regid', String(APP_GID), '--keep-groups'];
  app = await start(command, [...inside, ...gid, process.execPath, '--conditions=sluice-source', main, control], {
    name: 'app',
    ready: /app ready/,
  });
  const config = {
    proxy: 'pod',
    dir,
    bootstrap,
    envoy: await envoyBinary(from),
    baseId: block.baseId(),
    concurrency: 2,
  };
  keeper = await KeeperProcess.start({ ...config, policy: { http1: { silentIdleGraceMs: 1_000 } } }, pod.inside);
  const inbound = new RedirectLoad({ host: POD, tls: 0, ...PORTS });
  await call('/load');
  await until('both loads run', async () => (inbound.answered > 200 && world.seen.size > 200 ? true : undefined));
  const answer = await keeper.call('POST', '/v1/upgrade', { to: await envoyBinary(to) });
  if (answer.body.ok !== true) throw new Error(`the upgrade was refused: ${JSON.stringify(answer.body)}`);
  await keeper.line('drain order applied');
  const old = await heldByListener(keeper);
  const agent = keeper;
  const drained = () => agent.line('old epoch reset');
  // Without the filter nobody can tell the HTTP connections of the virtual listeners from the TCP ones, and none of them is
  // closed by us: the silent ones end with their clients.
  const filtered = Object.keys(old).length > 0;
  if (filtered) await drained();
  const before = inbound.answered;
  await until('the new epoch serves', () => (inbound.answered > before + 200 ? true : undefined));
  await inbound.stop();
  const seenByApp = new Map((await call('/stop')) as [string, number][]);
  const reset = await drained();
  const outbound = (await call('/result', JSON.stringify([...world.seen]))) as LoadResult;
  const result: RedirectResult = { inbound: inbound.result(seenByApp), outbound, old, cut: Number(reset.cut) };
  console.log(JSON.stringify(result));
} finally {
  keeper?.child.kill('SIGKILL');
  app?.kill('SIGKILL');
  endEpochs(dir);
  pod?.close();
  await block.release();
}
process.exit(0);

async function call(url: string, body?: string): Promise<unknown> {
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    const method = body === undefined ? 'GET' : 'POST';
    http.request({ socketPath: control, path: url, method, timeout: 30_000 }, resolve).on('error', reject).end(body);
  });
  return JSON.parse(await text(response));
}

/** As the keeper's filter tells; empty where Envoy runs none. */
async function heldByListener(agent: KeeperProcess): Promise<Record<string, number>> {
  const { body } = await agent.call('GET', '/v1/connections?epoch=0');
  const found: Record<string, number> = {};
  for (const { listener } of body.items as { listener: string }[]) {
    found[listener] = (found[listener] ?? 0) + 1;
  }
  return found;
}
