import { spawnSync } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import { type Child, start, until } from '../harness/process.ts';

/** The world's side of the veth pair, and the Pod's. */
export const WORLD = '10.77.0.1';
export const POD = '10.77.0.2';
export const PORTS = { http: 8080, tcp: 8081 } as const;
export const OUTSIDE = { http: 9000, tcp: 9001 } as const;
export const VIRTUAL = { inbound: 15006, outbound: 15001 } as const;
/** The app's group: its traffic is redirected, Envoy's is not (Istio does the same by the proxy's user). */
export const APP_GID = 65_534;

/** A network namespace like a Pod's: its inbound TCP is redirected to Envoy, and what the app opens too. */
export class Pod {
  readonly #holder: Child;

  private constructor(holder: Child) {
    this.#holder = holder;
  }

  static async create(): Promise<Pod> {
    const holder = await start('unshare', ['-n', 'sleep', '300'], { name: 'pod' });
    const own = readlinkSync('/proc/self/ns/net');
    await until('a network namespace', () => (readlinkSync(`/proc/${holder.pid}/ns/net`) === own ? undefined : true));
    const pod = new Pod(holder);
    run('ip', 'link', 'add', 'world', 'type', 'veth', 'peer', 'name', 'pod', 'netns', String(holder.pid));
    run('ip', 'addr', 'add', `${WORLD}/24`, 'dev', 'world');
    run('ip', 'link', 'set', 'world', 'up');
    pod.run('ip', 'addr', 'add', `${POD}/24`, 'dev', 'pod');
    pod.run('ip', 'link', 'set', 'pod', 'up');
    pod.run('ip', 'link', 'set', 'lo', 'up');
    const redirect = (chain: string, match: string[], to: number) =>
      pod.run('iptables', '-t', 'nat', '-A', chain, '-p', 'tcp', ...match, '-j', 'REDIRECT', '--to-ports', `${to}`);
    redirect('PREROUTING', ['-d', POD], VIRTUAL.inbound);
    redirect('OUTPUT', ['-d', WORLD, '-m', 'owner', '--gid-owner', String(APP_GID)], VIRTUAL.outbound);
    return pod;
  }

  /** Put before a command, it runs in the Pod. */
  get inside(): string[] {
    return ['nsenter', '-t', String(this.#holder.pid), '-n', '--'];
  }

  run(...command: string[]): void {
    run(...this.inside, ...command);
  }

  close(): void {
    this.#holder.kill('SIGKILL');
  }
}

function run(...[command = '', ...args]: string[]): void {
  const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? stderr}`);
}

const TYPE = 'type.googleapis.com/envoy.';

/** As Istio lays them out: a virtual inbound and a virtual outbound listener, and one for a service without a port of its own. */
export function podBootstrap(): object {
  const address = (host: string, port: number) => ({ socket_address: { address: host, port_value: port } });
  const originalDst = {
    name: 'original_dst',
    typed_config: { '@type': `${TYPE}extensions.filters.listener.original_dst.v3.OriginalDst` },
  };
  const cluster = (name: string, port: number) => ({
    name,
    type: 'STATIC',
    connect_timeout: '5s',
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address: address('127.0.0.1', port) } }] }],
    },
  });
  const passthrough = {
    name: 'passthrough',
    type: 'ORIGINAL_DST',
    lb_policy: 'CLUSTER_PROVIDED',
    connect_timeout: '5s',
  };
  const to = (port: number) => ({ destination_port: port });
  return {
    static_resources: {
      listeners: [
        {
          name: 'virtualInbound',
          traffic_direction: 'INBOUND',
          address: address('0.0.0.0', VIRTUAL.inbound),
          listener_filters: [originalDst],
          filter_chains: [
            { filter_chain_match: to(PORTS.http), filters: [hcm('inbound', 'app')] },
            { filter_chain_match: to(PORTS.tcp), filters: [tcpProxy('inbound-tcp', 'app-tcp')] },
          ],
        },
        {
          name: 'virtualOutbound',
          traffic_direction: 'OUTBOUND',
          address: address('0.0.0.0', VIRTUAL.outbound),
          use_original_dst: true,
          listener_filters: [originalDst],
          filter_chains: [{ filters: [tcpProxy('outbound-tcp', 'passthrough')] }],
        },
        {
          name: `${WORLD}_${OUTSIDE.http}`,
          traffic_direction: 'OUTBOUND',
          address: address(WORLD, OUTSIDE.http),
          bind_to_port: false,
          filter_chains: [{ filters: [hcm('outbound', 'passthrough')] }],
        },
      ],
      clusters: [cluster('app', PORTS.http), cluster('app-tcp', PORTS.tcp), passthrough],
    },
  };
}

function hcm(stat: string, cluster: string): object {
  const routes = [{ match: { prefix: '/' }, route: { cluster, timeout: '60s' } }];
  return {
    name: 'hcm',
    typed_config: {
      '@type': `${TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`,
      stat_prefix: stat,
      codec_type: 'AUTO',
      drain_timeout: '1s',
      upgrade_configs: [{ upgrade_type: 'websocket' }],
      route_config: { virtual_hosts: [{ name: 'all', domains: ['*'], routes }] },
      http_filters: [{ name: 'router', typed_config: { '@type': `${TYPE}extensions.filters.http.router.v3.Router` } }],
    },
  };
}

function tcpProxy(stat: string, cluster: string): object {
  const config = { '@type': `${TYPE}extensions.filters.network.tcp_proxy.v3.TcpProxy`, stat_prefix: stat, cluster };
  return { name: 'tcp', typed_config: config };
}
