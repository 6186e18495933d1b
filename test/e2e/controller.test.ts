import { mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import path from 'node:path';
import { isTerminal, NdjsonDecoder, type UpgradeView, type WatchItem } from '@sluice/contract';
import { type StartedController, startController } from '@sluice/xds-server';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { endEpochs, KeeperProcess } from '../harness/keeper.ts';
import { type Block, claimBlock } from '../harness/ports.ts';

let block: Block;
let upstream: http.Server;
let port: number;
let controller: StartedController;
let settings: Parameters<typeof startController>[0];
let keepers: KeeperProcess[];
let dir: string;

const silent = { debug() {}, info() {}, warn() {}, error() {} };

beforeEach(async () => {
  block = await claimBlock();
  port = await block.port();
  const upstreamPort = await block.port();
  const xdsPort = await block.port();
  const apiPort = await block.port();
  keepers = [];
  upstream = http.createServer((_, response) => response.end('done\n'));
  upstream.keepAliveTimeout = 60_000;
  await new Promise<void>((resolve) => upstream.listen(upstreamPort, '127.0.0.1', resolve));
  dir = path.join(block.dir, 'run');
  mkdirSync(dir);
  const resources = path.join(block.dir, 'resources');
  mkdirSync(resources);
  writeFileSync(path.join(resources, 'all.json'), JSON.stringify({ resources: served(port, upstreamPort) }));
  writeFileSync(path.join(block.dir, 'envoy.json'), '{}');
  settings = {
    apiAddress: `127.0.0.1:${apiPort}`,
    xdsAddress: `127.0.0.1:${xdsPort}`,
    resources,
    state: path.join(block.dir, 'state.db'),
    policy: { http1: { silentIdleGraceMs: 1_000 } },
  };
  controller = await startController(settings, { log: silent });
});

afterEach(async () => {
  for (const keeper of keepers) keeper.child.kill('SIGKILL');
  await endEpochs(dir);
  await controller.close();
  upstream.closeAllConnections();
  upstream.close();
  await block.release();
});

async function keeper(version: string): Promise<KeeperProcess> {
  const started = await KeeperProcess.start({
    proxy: 'edge',
    dir,
    bootstrap: path.join(block.dir, 'envoy.json'),
    envoy: await envoyBinary(version),
    baseId: block.baseId(),
    concurrency: 2,
    controllers: [`http://${settings.apiAddress}`],
    xds: settings.xdsAddress,
  });
  keepers.push(started);
  return started;
}

async function api<T>(method: string, url: string, body?: unknown): Promise<T> {
  const response = await fetch(`http://${settings.apiAddress}/api/v1${url}`, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
  });
  const answer = (await response.json()) as T;
  if (!response.ok) throw new Error(JSON.stringify(answer));
  return answer;
}

/** Follows the watch until an upgrade is as wanted; fails with its record when it ends otherwise. */
async function until(id: string, wanted: (upgrade: UpgradeView) => boolean): Promise<UpgradeView> {
  const response = await fetch(`http://${settings.apiAddress}/api/v1/watch`);
  const decoder = new NdjsonDecoder();
  for await (const chunk of response.body!) {
    for (const item of decoder.push(chunk) as unknown as WatchItem[]) {
      if (item.kind !== 'upgrade' || item.upgrade.id !== id) continue;
      if (wanted(item.upgrade)) return item.upgrade;
      if (isTerminal(item.upgrade.phase)) throw new Error(`ended as ${JSON.stringify(item.upgrade)}`);
    }
  }
  throw new Error('the watch ended');
}

/** An HTTP/2 connection that had one request and is idle now. */
async function idleHttp2(): Promise<{ goaway: Promise<number>; close: () => void }> {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  session.on('error', () => undefined);
  const goaway = new Promise<number>((resolve) => session.once('goaway', () => resolve(Date.now())));
  const request = session.request({ ':path': '/' });
  await new Promise<void>((resolve, reject) => {
    request.on('error', reject);
    request.on('end', resolve);
    request.resume();
  });
  return { goaway, close: () => session.destroy() };
}

async function answers(): Promise<boolean> {
  return fetch(`http://127.0.0.1:${port}/`).then(
    (response) => response.ok,
    () => false,
  );
}

async function listening(): Promise<void> {
  const { items } = await api<{ items: { xds: { types: { type: string; acked: boolean }[] }[] }[] }>('GET', '/proxies');
  const acked = items.some((p) => p.xds.some((e) => e.types.some((t) => t.type === 'lds' && t.acked)));
  if (acked && (await answers())) return;
  await new Promise((resolve) => setTimeout(resolve, 50));
  return listening();
}

test.each([
  ['1.36.4', '1.40.0'],
  ['1.38.3', '1.40.0'],
])('an upgrade %s -> %s ordered through the API, with all of its config by our xDS', async (from, to) => {
  await keeper(from);
  await listening();
  const idle = await idleHttp2();
  const load = newConnections(port, 200);
  const { id } = await api<UpgradeView>('POST', '/upgrades', { proxy: 'edge', to: await envoyBinary(to) });
  const draining = await until(id, (upgrade) => upgrade.phase === 'Draining' || upgrade.phase === 'Resetting');
  const told = await idle.goaway;
  expect(told - (draining.drainStartedAt ?? 0)).toBeLessThan(2_000);
  const done = await until(id, (upgrade) => upgrade.phase === 'Done');
  idle.close();
  expect(done).toMatchObject({ from, to, order: { via: 'xds' }, connections: { cut: [] } });
  expect(done.order?.nack).toBeUndefined();
  expect(done.order?.ackedAt).toBeDefined();
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  expect(await answers()).toBe(true);
});

function served(listen: number, to: number): object[] {
  const type = 'type.googleapis.com/';
  return [
    {
      '@type': `${type}envoy.config.listener.v3.Listener`,
      name: 'web',
      address: { socket_address: { address: '127.0.0.1', port_value: listen } },
      filter_chains: [
        {
          filters: [
            {
              name: 'envoy.filters.network.http_connection_manager',
              typed_config: {
                '@type': `${type}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`,
                stat_prefix: 'web',
                codec_type: 'AUTO',
                rds: { route_config_name: 'web', config_source: { ads: {}, resource_api_version: 'V3' } },
                http_filters: [
                  {
                    name: 'envoy.filters.http.router',
                    typed_config: { '@type': `${type}envoy.extensions.filters.http.router.v3.Router` },
                  },
                ],
              },
            },
          ],
        },
      ],
    },
    {
      '@type': `${type}envoy.config.route.v3.RouteConfiguration`,
      name: 'web',
      virtual_hosts: [
        { name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, route: { cluster: 'upstream' } }] },
      ],
    },
    {
      '@type': `${type}envoy.config.cluster.v3.Cluster`,
      name: 'upstream',
      type: 'STATIC',
      connect_timeout: '2s',
      load_assignment: {
        cluster_name: 'upstream',
        endpoints: [
          {
            lb_endpoints: [{ endpoint: { address: { socket_address: { address: '127.0.0.1', port_value: to } } } }],
          },
        ],
      },
    },
  ];
}
