import { APP_PORTS } from './mesh-ports.ts';
import { SIDECAR_PORTS } from './sidecar-pod.ts';

const TYPE = 'type.googleapis.com/envoy.';

/**
 * Virtual inbound and outbound listeners, as Istio lays them out behind REDIRECT: the port that was meant chooses the chain.
 * @param world port of the HTTP service outside that the app calls; what else it calls is TCP
 */
export function meshBootstrap(world: number): object {
  const h2 = {
    typed_extension_protocol_options: {
      [`${TYPE.slice('type.googleapis.com/'.length)}extensions.upstreams.http.v3.HttpProtocolOptions`]: {
        '@type': `${TYPE}extensions.upstreams.http.v3.HttpProtocolOptions`,
        explicit_http_config: { http2_protocol_options: {} },
      },
    },
  };
  const passthrough = {
    name: 'passthrough',
    type: 'ORIGINAL_DST',
    lb_policy: 'CLUSTER_PROVIDED',
    connect_timeout: '5s',
  };
  const app = [
    { match: { prefix: '/load-control/' }, route: { cluster: 'load', prefix_rewrite: '/', timeout: '60s' } },
    { match: { prefix: '/' }, route: { cluster: 'app', timeout: '60s' } },
  ];
  const all = (cluster: string, timeout: string) => [{ match: { prefix: '/' }, route: { cluster, timeout } }];
  return {
    static_resources: {
      listeners: [
        virtual('virtualInbound', SIDECAR_PORTS.inbound, 'INBOUND', [
          chain(APP_PORTS.http, hcm('inbound', app)),
          // A stream ends when its ends want it to.
          chain(APP_PORTS.grpc, hcm('inbound-grpc', all('app-grpc', '0s'))),
          chain(APP_PORTS.tcp, tcpProxy('inbound-tcp', 'app-tcp')),
        ]),
        virtual('virtualOutbound', SIDECAR_PORTS.outbound, 'OUTBOUND', [
          chain(world, hcm('outbound', all('passthrough', '60s'))),
          { filters: [tcpProxy('outbound-tcp', 'passthrough')] },
        ]),
      ],
      clusters: [
        local('app', APP_PORTS.http),
        local('load', APP_PORTS.load),
        { ...local('app-grpc', APP_PORTS.grpc), ...h2 },
        local('app-tcp', APP_PORTS.tcp),
        passthrough,
      ],
    },
  };
}

const address = (host: string, port: number) => ({ socket_address: { address: host, port_value: port } });
const chain = (port: number, filter: object) => ({ filter_chain_match: { destination_port: port }, filters: [filter] });

function virtual(name: string, port: number, direction: string, chains: readonly object[]): object {
  const original = `${TYPE}extensions.filters.listener.original_dst.v3.OriginalDst`;
  return {
    name,
    traffic_direction: direction,
    address: address('0.0.0.0', port),
    listener_filters: [{ name: 'original_dst', typed_config: { '@type': original } }],
    filter_chains: chains,
  };
}

function local(name: string, port: number): object {
  const endpoint = { address: address('127.0.0.1', port) };
  const load_assignment = { cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint }] }] };
  return { name, type: 'STATIC', connect_timeout: '5s', load_assignment };
}

function hcm(stat: string, routes: readonly object[]): object {
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
