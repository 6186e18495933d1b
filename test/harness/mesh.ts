import { mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { ControllerProcess } from './controller.ts';
import { endEpochs, KeeperProcess } from './keeper.ts';
import { type Block, claimBlock } from './ports.ts';

/** One proxy whose listeners, routes and clusters come by xDS from a folder; controller and agent are processes. */
export interface Mesh {
  readonly block: Block;
  readonly port: number;
  readonly resources: string;
  readonly upstreamPort: number;
  readonly controller: ControllerProcess;
  agent: KeeperProcess;
  startAgent(change?: Record<string, unknown>): Promise<KeeperProcess>;
  close(): Promise<void>;
}

export async function startMesh(agentConfig: Record<string, unknown>): Promise<Mesh> {
  const block = await claimBlock();
  const [port, upstreamPort, apiPort, xdsPort] = [
    await block.port(),
    await block.port(),
    await block.port(),
    await block.port(),
  ];
  const upstream = http.createServer((request, response) => {
    const delay = Number(new URL(request.url ?? '/', 'http://x').searchParams.get('delay') ?? 0);
    // Whoever keeps a request open has it answered when it likes.
    request.resume().once('end', () => setTimeout(() => response.end('done\n'), delay));
  });
  upstream.keepAliveTimeout = 120_000; // or Envoy meets a connection of its pool that the upstream closed a moment ago
  await new Promise<void>((resolve) => upstream.listen(upstreamPort, '127.0.0.1', resolve));
  const resources = path.join(block.dir, 'resources');
  const dir = path.join(block.dir, 'run');
  mkdirSync(resources);
  mkdirSync(dir);
  writeFileSync(path.join(resources, 'all.json'), JSON.stringify({ resources: meshResources(port, upstreamPort) }));
  const bootstrap = path.join(block.dir, 'envoy.json');
  writeFileSync(bootstrap, '{}');
  const setup = {
    apiPort,
    xdsPort,
    resources,
    state: path.join(block.dir, 'state.db'),
    log: path.join(block.dir, 'controller.log'),
  };
  const controller = await ControllerProcess.start(setup);
  const config = {
    proxy: 'edge',
    dir,
    bootstrap,
    baseId: block.baseId(),
    concurrency: 2,
    controllers: [controller.url],
    xds: `127.0.0.1:${xdsPort}`,
    ...agentConfig,
  };
  const agents: KeeperProcess[] = [];
  const mesh: Mesh = {
    block,
    port,
    resources,
    upstreamPort,
    controller,
    agent: undefined as unknown as KeeperProcess,
    async startAgent(change = {}) {
      const agent = await KeeperProcess.start({ ...config, ...change });
      agents.push(agent);
      mesh.agent = agent;
      await controller.linked('edge');
      return agent;
    },
    async close() {
      for (const agent of agents) agent.child.kill('SIGKILL');
      controller.child.kill('SIGKILL');
      endEpochs(dir);
      upstream.closeAllConnections();
      upstream.close();
      await block.release();
    },
  };
  try {
    await mesh.startAgent();
  } catch (error) {
    await mesh.close();
    throw error;
  }
  return mesh;
}

/** Runtime key: the share of requests, in percent, that Envoy itself answers with 500. */
export const FAILING = 'test.failing';

/** The number changes what Envoy is pushed without changing what it does. */
export function meshResources(port: number, upstreamPort: number, revision = 0): unknown[] {
  const type = (name: string) => `type.googleapis.com/envoy.${name}`;
  const address = (p: number) => ({ socket_address: { address: '127.0.0.1', port_value: p } });
  const ads = { ads: {}, resource_api_version: 'V3' };
  const hcm = {
    '@type': type('extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'),
    stat_prefix: 'in',
    drain_timeout: '1s',
    server_name: `revision-${revision}`,
    upgrade_configs: [{ upgrade_type: 'websocket' }],
    rds: { route_config_name: 'routes', config_source: ads },
    http_filters: [{ name: 'router', typed_config: { '@type': type('extensions.filters.http.router.v3.Router') } }],
  };
  const failing = { default_value: { numerator: 0 }, runtime_key: FAILING };
  const endpoints = [{ lb_endpoints: [{ endpoint: { address: address(upstreamPort) } }] }];
  const headers = [{ header: { key: 'x-revision', value: String(revision) } }];
  return [
    {
      '@type': type('config.listener.v3.Listener'),
      name: 'in',
      address: address(port),
      filter_chains: [{ filters: [{ name: 'hcm', typed_config: hcm }] }],
    },
    {
      '@type': type('config.route.v3.RouteConfiguration'),
      name: 'routes',
      response_headers_to_add: headers,
      virtual_hosts: [
        {
          name: 'all',
          domains: ['*'],
          routes: [
            { match: { prefix: '/', runtime_fraction: failing }, direct_response: { status: 500 } },
            { match: { prefix: '/' }, route: { cluster: 'up', timeout: '60s' } },
          ],
        },
      ],
    },
    {
      '@type': type('config.cluster.v3.Cluster'),
      name: 'up',
      type: 'EDS',
      connect_timeout: '1s',
      eds_cluster_config: { eds_config: ads },
    },
    { '@type': type('config.endpoint.v3.ClusterLoadAssignment'), cluster_name: 'up', endpoints },
  ];
}
