import { randomBytes } from 'node:crypto';
import { type Certificate, selfSigned } from '../harness/certificate.ts';
import type { UpstreamPorts } from '../harness/upstream/server.ts';

/** How a cell's client reaches Envoy: one listener each. */
export type Transport =
  | 'plain'
  | 'tls'
  /** Without configured ticket keys: each Envoy makes its own. */
  | 'tls-own-keys'
  | 'mtls'
  | 'proxy-protocol'
  | 'ipv6'
  | 'unix'
  | 'tcp'
  | 'tls-tcp';

export const TRANSPORTS: readonly Transport[] = [
  'plain',
  'tls',
  'tls-own-keys',
  'mtls',
  'proxy-protocol',
  'ipv6',
  'unix',
  'tcp',
  'tls-tcp',
];

/** A port, or the path of a Unix socket. */
export type Where = Readonly<Record<Transport, number | string>>;

export interface Identity {
  readonly server: Certificate;
  readonly client: Certificate;
}

export function identity(): Identity {
  return { server: selfSigned('matrix.sluice.test'), client: selfSigned('client.matrix.sluice.test') };
}

const TYPE = 'type.googleapis.com/envoy.';
const LOOPBACK = '127.0.0.1';

/** A user's bootstrap with a listener for each transport. No retry policy anywhere: what fails shall be seen. */
export function matrixBootstrap(where: Where, upstream: UpstreamPorts, { server, client }: Identity): object {
  const keys = { session_ticket_keys: { keys: [{ inline_bytes: randomBytes(80).toString('base64') }] } };
  const trusted = { validation_context: { trusted_ca: { inline_string: client.certificate } } };
  const chains: Record<Transport, object> = {
    plain: { filters: [hcm('plain')] },
    tls: { filters: [hcm('tls')], ...tls(server, {}, keys) },
    'tls-own-keys': { filters: [hcm('tls-own-keys')], ...tls(server, {}, {}) },
    mtls: { filters: [hcm('mtls')], ...tls(server, trusted, { ...keys, require_client_certificate: true }) },
    'proxy-protocol': { filters: [hcm('proxy-protocol')] },
    ipv6: { filters: [hcm('ipv6')] },
    unix: { filters: [hcm('unix')] },
    tcp: { filters: [tcpProxy('tcp')] },
    'tls-tcp': { filters: [tcpProxy('tls-tcp')], ...tls(server, {}, keys) },
  };
  const proxyProtocol = {
    name: 'proxy_protocol',
    typed_config: { '@type': `${TYPE}extensions.filters.listener.proxy_protocol.v3.ProxyProtocol` },
  };
  return {
    static_resources: {
      listeners: TRANSPORTS.map((name) => ({
        name,
        address: address(where[name], name === 'ipv6' ? '::1' : LOOPBACK),
        ...(name === 'proxy-protocol' && { listener_filters: [proxyProtocol] }),
        filter_chains: [chains[name]],
      })),
      clusters: [cluster('http', upstream.http), cluster('grpc', upstream.grpc, true), cluster('tcp', upstream.tcp)],
    },
  };
}

function hcm(stat: string): object {
  const route = (prefix: string, to: string) => ({ match: { prefix }, route: { cluster: to, timeout: '0s' } });
  return {
    name: 'hcm',
    typed_config: {
      '@type': `${TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`,
      stat_prefix: stat,
      codec_type: 'AUTO',
      // How long Envoy waits after the first GOAWAY; no cell depends on it.
      drain_timeout: '1s',
      upgrade_configs: [{ upgrade_type: 'websocket' }],
      http_protocol_options: { accept_http_10: true, enable_trailers: true },
      http2_protocol_options: { allow_connect: true },
      route_config: {
        virtual_hosts: [
          { name: 'all', domains: ['*'], routes: [route('/sluice.load.Echo/', 'grpc'), route('/', 'http')] },
        ],
      },
      http_filters: [{ name: 'router', typed_config: { '@type': `${TYPE}extensions.filters.http.router.v3.Router` } }],
    },
  };
}

function tcpProxy(stat: string): object {
  const config = { '@type': `${TYPE}extensions.filters.network.tcp_proxy.v3.TcpProxy`, stat_prefix: stat };
  return { name: 'tcp', typed_config: { ...config, cluster: 'tcp' } };
}

function tls(server: Certificate, common: object, context: object): object {
  const certificate = {
    certificate_chain: { inline_string: server.certificate },
    private_key: { inline_string: server.key },
  };
  return {
    transport_socket: {
      name: 'tls',
      typed_config: {
        '@type': `${TYPE}extensions.transport_sockets.tls.v3.DownstreamTlsContext`,
        common_tls_context: { alpn_protocols: ['h2', 'http/1.1'], tls_certificates: [certificate], ...common },
        ...context,
      },
    },
  };
}

function address(at: number | string, host: string): object {
  return typeof at === 'string' ? { pipe: { path: at } } : { socket_address: { address: host, port_value: at } };
}

function cluster(name: string, port: number, http2 = false): object {
  const config = http2 ? { http2_protocol_options: {} } : { http_protocol_options: { enable_trailers: true } };
  const endpoints = [{ lb_endpoints: [{ endpoint: { address: address(port, LOOPBACK) } }] }];
  return {
    name,
    type: 'STATIC',
    connect_timeout: '5s',
    load_assignment: { cluster_name: name, endpoints },
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': `${TYPE}extensions.upstreams.http.v3.HttpProtocolOptions`,
        explicit_http_config: config,
      },
    },
  };
}
