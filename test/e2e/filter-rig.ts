import { once } from 'node:events';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import net from 'node:net';
import path from 'node:path';
import type { Duplex } from 'node:stream';
import { FilterTable } from '@sluice/agent/witnesses/filter-table';
import {
  AGENT_CLUSTER,
  type Command,
  DRAIN_RESOURCE,
  type DrainOrder,
  decodeReport,
  encodeReply,
  NODE_METADATA,
  REPORT_PATH,
  type Report,
  WASM_ROOT,
  WASM_VM_ID,
} from '@sluice/contract';
import { LEAVE_RESOURCE, LUA_TYPE, leaveTypedConfig } from '@sluice/contract/presets/leave';
import { wasmPath } from '@sluice/wasm-filter';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { type Child, start } from '../harness/process.ts';

const TYPE = 'type.googleapis.com/';
const EXTENSIONS = `${TYPE}envoy.extensions.`;

/** The filter's part of that root, as Envoy wants it. */
function wasm(root: string, configuration = ''): object {
  return {
    name: root,
    root_id: root,
    failure_policy: 'FAIL_OPEN',
    configuration: { '@type': `${TYPE}google.protobuf.StringValue`, value: configuration },
    vm_config: {
      vm_id: WASM_VM_ID,
      runtime: 'envoy.wasm.runtime.v8',
      code: { local: { filename: wasmPath() } },
    },
  };
}

function httpWasm(root: string, configuration = ''): object {
  return {
    '@type': `${EXTENSIONS}filters.http.wasm.v3.Wasm`,
    config: wasm(root, configuration),
  };
}

function connectionFilter(listener: string, kind: 'http' | 'tcp'): object {
  return {
    name: 'sluice.connection',
    typed_config: {
      '@type': `${EXTENSIONS}filters.network.wasm.v3.Wasm`,
      config: wasm(WASM_ROOT.connection, JSON.stringify({ listener, kind })),
    },
  };
}

const address = (port: number) => ({ socket_address: { address: '127.0.0.1', port_value: port } });

/** What the upstream holds back until release() is called, by request path. */
class Upstream {
  readonly server = http.createServer((request, response) => {
    request.resume();
    if (!/^\/(hold|drip)/.test(request.url ?? '')) {
      response.end('ok');
      return;
    }
    // Held back from its first byte on, or after it.
    const drips = request.url?.startsWith('/drip');
    if (drips) response.write('begin ');
    this.held.push(() => response.end(drips ? 'end' : 'held'));
    this.arrived();
  });
  readonly held: (() => void)[] = [];
  arrived: () => void = () => {};
  readonly #upgraded = new Set<Duplex>();
  readonly tcp = net.createServer((socket) => socket.on('error', () => {}).pipe(socket));

  async listen(): Promise<void> {
    // An upgrade is bytes both ways to every proxy on the way: no frames are needed to be one.
    this.server.on('upgrade', (_request, socket) => {
      this.#upgraded.add(socket);
      socket
        .on('error', () => {})
        .write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n');
      socket.pipe(socket);
    });
    this.server.listen(0, '127.0.0.1');
    this.tcp.listen(0, '127.0.0.1');
    await Promise.all([once(this.server, 'listening'), once(this.tcp, 'listening')]);
  }

  holding(): Promise<void> {
    return new Promise((resolve) => {
      this.arrived = resolve;
    });
  }

  release(): void {
    for (const end of this.held.splice(0)) end();
  }

  close(): void {
    for (const socket of this.#upgraded) socket.destroy();
    this.server.close();
    this.server.closeAllConnections();
    this.tcp.close();
  }
}

/** Stands for the agent: the table of one epoch behind a Unix socket. */
class Agent {
  table = new FilterTable(EPOCH);
  reports: Report[] = [];
  refused = 0;
  largest = 0;
  /** Status to answer with; anything but 200 makes the filter begin anew. */
  status = 200;
  readonly #path: string;
  #server: http.Server | undefined;
  #looks = new Set<() => void>();

  constructor(path: string) {
    this.#path = path;
  }

  async listen(): Promise<void> {
    await rm(this.#path, { force: true });
    this.#server = http.createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        if (request.method !== 'POST' || request.url !== REPORT_PATH) this.refused++;
        response.writeHead(this.status).end(this.#take(Buffer.concat(chunks)));
      });
    });
    this.#server.listen(this.#path);
    await once(this.#server, 'listening');
  }

  #take(body: Buffer): Uint8Array {
    if (this.status !== 200) return new Uint8Array(0);
    this.largest = Math.max(this.largest, body.length);
    let commands: Command[] = [];
    try {
      const report = decodeReport(body);
      if (this.reports.length < 10_000) this.reports.push(report);
      commands = this.table.apply(report);
    } catch {
      this.refused++;
    }
    for (const look of [...this.#looks]) look();
    return encodeReply(commands);
  }

  /** The next answer of `probe` that is not undefined, looked for after each report. */
  seen<T>(what: string, probe: () => T | undefined, limitMs = 10_000): Promise<T> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const found = probe();
        if (found === undefined) return;
        clearTimeout(timer);
        this.#looks.delete(look);
        resolve(found);
      };
      const timer = setTimeout(() => {
        this.#looks.delete(look);
        const state = JSON.stringify({
          open: this.table.open(),
          fault: this.table.lastFault,
          of: this.table.connections().slice(0, 5),
        });
        reject(new Error(`${what}: not within ${limitMs} ms; ${state}`));
      }, limitMs);
      this.#looks.add(look);
      look();
    });
  }

  async kill(): Promise<void> {
    this.#server?.closeAllConnections();
    const closed = this.#server && once(this.#server, 'close');
    this.#server?.close();
    await closed;
    await rm(this.#path, { force: true });
  }
}

export const EPOCH = 7;
/** Long, so that a few thousand connections do not fit into one report. */
export const WEB = `web-${'x'.repeat(200)}`;

/** A real Envoy with every part of the filter, its upstream and its agent. */
export interface Rig {
  readonly agent: Agent;
  readonly upstream: Upstream;
  readonly envoy: Child;
  readonly httpPort: number;
  readonly tcpPort: number;
  readonly adminPort: number;
  /** Puts a drain order into force as an ECDS push does: the resource's file is replaced. */
  order(order: DrainOrder | string): Promise<void>;
  /** Puts the Lua filter that makes marked connections leave in front of the drain's, by the same way. */
  leave(): Promise<void>;
  close(): Promise<void>;
}

export async function rig(version: string, concurrency = 2): Promise<Rig> {
  const block = await claimBlock();
  const upstream = new Upstream();
  const agent = new Agent(path.join(block.dir, 'agent.sock'));
  await Promise.all([upstream.listen(), agent.listen()]);
  const [httpPort, tcpPort, adminPort] = [await block.port(), await block.port(), await block.port()];
  const ecds = path.join(block.dir, 'ecds');
  await mkdir(ecds);
  const push = async (name: string, typed_config: object) => {
    const resource = { '@type': `${TYPE}envoy.config.core.v3.TypedExtensionConfig`, name, typed_config };
    await writeFile(
      path.join(ecds, 'new'),
      JSON.stringify({ version_info: String(Date.now()), resources: [resource] }),
    );
    await rename(path.join(ecds, 'new'), path.join(ecds, `${name}.json`));
  };
  const order = (value: DrainOrder | string) =>
    push(DRAIN_RESOURCE, httpWasm(WASM_ROOT.drain, typeof value === 'string' ? value : JSON.stringify(value)));
  const none = { '@type': `${EXTENSIONS}filters.http.header_mutation.v3.HeaderMutation`, mutations: {} };
  const slot = async (name: string, type: string) => {
    await push(name, none);
    return {
      name,
      config_discovery: {
        config_source: {
          path_config_source: { path: path.join(ecds, `${name}.json`), watched_directory: { path: ecds } },
        },
        default_config: none,
        apply_default_config_without_warming: true,
        type_urls: [type, none['@type']],
      },
    };
  };
  const filters = [
    await slot(LEAVE_RESOURCE, LUA_TYPE),
    await slot(DRAIN_RESOURCE, `${EXTENSIONS}filters.http.wasm.v3.Wasm`),
    { name: 'router', typed_config: { '@type': `${EXTENSIONS}filters.http.router.v3.Router` } },
  ];
  const cluster = (name: string, endpoint: object) => ({
    name,
    type: 'STATIC',
    load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint: { address: endpoint } }] }] },
  });
  const bootstrap = {
    node: { id: 'rig', cluster: 'rig', metadata: { [NODE_METADATA.epoch]: String(EPOCH) } },
    admin: { address: address(adminPort) },
    bootstrap_extensions: [
      {
        name: 'envoy.bootstrap.wasm',
        typed_config: {
          '@type': `${EXTENSIONS}wasm.v3.WasmService`,
          singleton: false,
          config: wasm(WASM_ROOT.service),
        },
      },
    ],
    static_resources: {
      listeners: [
        {
          name: WEB,
          address: address(httpPort),
          filter_chains: [
            {
              filters: [
                connectionFilter(WEB, 'http'),
                {
                  name: 'hcm',
                  typed_config: {
                    '@type': `${EXTENSIONS}filters.network.http_connection_manager.v3.HttpConnectionManager`,
                    stat_prefix: 'web',
                    upgrade_configs: [
                      {
                        upgrade_type: 'websocket',
                        filters: [{ name: 'sluice.upgrade', typed_config: httpWasm(WASM_ROOT.upgrade) }, ...filters],
                      },
                    ],
                    route_config: {
                      virtual_hosts: [
                        {
                          name: 'v',
                          domains: ['*'],
                          routes: [
                            { name: 'pay', match: { prefix: '/pay' }, route: { cluster: 'up', timeout: '0s' } },
                            { match: { prefix: '/' }, route: { cluster: 'up', timeout: '0s' } },
                          ],
                        },
                      ],
                    },
                    http_filters: filters,
                  },
                },
              ],
            },
          ],
        },
        {
          name: 'raw',
          address: address(tcpPort),
          filter_chains: [
            {
              filters: [
                connectionFilter('raw', 'tcp'),
                {
                  name: 'tcp',
                  typed_config: {
                    '@type': `${EXTENSIONS}filters.network.tcp_proxy.v3.TcpProxy`,
                    stat_prefix: 'raw',
                    cluster: 'tcp',
                  },
                },
              ],
            },
          ],
        },
      ],
      clusters: [
        cluster('up', address((upstream.server.address() as AddressInfo).port)),
        cluster('tcp', address((upstream.tcp.address() as AddressInfo).port)),
        cluster(AGENT_CLUSTER, { pipe: { path: path.join(block.dir, 'agent.sock') } }),
      ],
    },
  };
  const config = path.join(block.dir, 'bootstrap.json');
  await writeFile(config, JSON.stringify(bootstrap));
  const envoy = await startEnvoy(version, config, concurrency);
  return {
    agent,
    upstream,
    envoy,
    httpPort,
    tcpPort,
    adminPort,
    order,
    leave: () => push(LEAVE_RESOURCE, leaveTypedConfig()),
    close: () => close(block, envoy, upstream, agent),
  };
}

async function startEnvoy(version: string, config: string, concurrency: number): Promise<Child> {
  return start(
    await envoyBinary(version),
    ['-c', config, '--disable-hot-restart', '--concurrency', String(concurrency), '-l', 'info'],
    { name: `envoy ${version}`, ready: /starting main dispatch loop/ },
  );
}

async function close(block: Block, envoy: Child, upstream: Upstream, agent: Agent): Promise<void> {
  await envoy.stop();
  upstream.close();
  await agent.kill();
  await block.release();
}
