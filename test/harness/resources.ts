import { randomBytes } from 'node:crypto';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { selfSigned } from './certificate.ts';
import type { Targets } from './load/client.ts';
import type { UpstreamPorts } from './upstream/server.ts';

const HOST = '127.0.0.1';
const TYPE = 'type.googleapis.com/';
const HCM = `${TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`;
const ROUTER = {
  name: 'envoy.filters.http.router',
  typed_config: { '@type': `${TYPE}envoy.extensions.filters.http.router.v3.Router` },
};

export interface EnvoyResources {
  readonly listeners: readonly object[];
  readonly routes: readonly object[];
  readonly clusters: readonly object[];
}

/**
 * What the load needs of an Envoy: an HTTP listener (both versions, WebSocket), the same with TLS, and a tcp_proxy. No
 * retry policy anywhere: what fails shall be seen. `routes: 'ads'` leaves the routes to RDS.
 */
export function loadResources(targets: Targets, upstream: UpstreamPorts, routes: 'ads' | 'static'): EnvoyResources {
  const route = {
    name: 'load',
    virtual_hosts: [
      {
        name: 'all',
        domains: ['*'],
        routes: [
          { match: { prefix: '/sluice.load.Echo/' }, route: { cluster: 'grpc', timeout: '0s' } },
          { match: { prefix: '/' }, route: { cluster: 'http', timeout: '60s' } },
        ],
      },
    ],
  };
  const fromAds = { rds: { route_config_name: 'load', config_source: { ads: {}, resource_api_version: 'V3' } } };
  const hcm = (stat: string) => ({
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: {
      '@type': HCM,
      stat_prefix: stat,
      codec_type: 'AUTO',
      upgrade_configs: [{ upgrade_type: 'websocket' }],
      ...(routes === 'ads' ? fromAds : { route_config: route }),
      http_filters: [ROUTER],
    },
  });
  const tcp = {
    name: 'envoy.filters.network.tcp_proxy',
    typed_config: {
      '@type': `${TYPE}envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`,
      stat_prefix: 'tcp',
      cluster: 'tcp',
    },
  };
  return {
    listeners: [
      { name: 'http', address: address(targets.http), filter_chains: [{ filters: [hcm('http')] }] },
      {
        name: 'https',
        address: address(targets.tls),
        filter_chains: [{ transport_socket: tlsSocket(), filters: [hcm('https')] }],
      },
      { name: 'tcp', address: address(targets.tcp), filter_chains: [{ filters: [tcp] }] },
    ],
    routes: [route],
    clusters: [cluster('http', upstream.http), cluster('grpc', upstream.grpc, true), cluster('tcp', upstream.tcp)],
  };
}

/** Writes them as the controller's resource folder: one file a type, `{"resources": [...]}`, replaced by rename. */
export async function writeResources(dir: string, resources: EnvoyResources): Promise<void> {
  await mkdir(dir, { recursive: true });
  const kinds: [string, string, readonly object[]][] = [
    ['listeners', 'envoy.config.listener.v3.Listener', resources.listeners],
    ['routes', 'envoy.config.route.v3.RouteConfiguration', resources.routes],
    ['clusters', 'envoy.config.cluster.v3.Cluster', resources.clusters],
  ];
  for (const [name, type, list] of kinds) {
    const body = { resources: list.map((resource) => ({ '@type': TYPE + type, ...resource })) };
    const temp = path.join(dir, `.${name}.tmp`);
    await writeFile(temp, JSON.stringify(body, null, 2));
    await rename(temp, path.join(dir, `${name}.json`));
  }
}

function address(port: number): object {
  return { socket_address: { address: HOST, port_value: port } };
}

function cluster(name: string, port: number, http2 = false): object {
  const protocol = {
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': `${TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions`,
        explicit_http_config: { http2_protocol_options: {} },
      },
    },
  };
  return {
    name,
    type: 'STATIC',
    connect_timeout: '5s',
    circuit_breakers: { thresholds: [{ max_connections: 10000, max_pending_requests: 10000, max_requests: 10000 }] },
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address: address(port) } }] }],
    },
    ...(http2 ? protocol : {}),
  };
}

/** Both epochs get the same ticket key, so a ticket of the old one is good on the new one. */
function tlsSocket(): object {
  const { certificate, key } = selfSigned('demo.sluice.test');
  return {
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      '@type': `${TYPE}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext`,
      common_tls_context: {
        alpn_protocols: ['h2', 'http/1.1'],
        tls_certificates: [{ certificate_chain: { inline_string: certificate }, private_key: { inline_string: key } }],
      },
      session_ticket_keys: { keys: [{ inline_bytes: randomBytes(80).toString('base64') }] },
    },
  };
}
