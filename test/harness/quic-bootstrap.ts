import { selfSigned } from './certificate.ts';

const TYPE = 'type.googleapis.com/envoy.';

/** An HTTP/3 listener, and a TCP one beside it. */
export function quicBootstrap(ports: { quic: number; tcp: number; upstream: number }): object {
  const { certificate, key } = selfSigned('quic.sluice.test');
  const pair = { certificate_chain: { inline_string: certificate }, private_key: { inline_string: key } };
  const context = { common_tls_context: { alpn_protocols: ['h3'], tls_certificates: [pair] } };
  const transport = {
    '@type': `${TYPE}extensions.transport_sockets.quic.v3.QuicDownstreamTransport`,
    downstream_tls_context: context,
  };
  return {
    static_resources: {
      listeners: [
        {
          name: 'quic',
          address: address(ports.quic, 'UDP'),
          udp_listener_config: { quic_options: {} },
          filter_chains: [
            { transport_socket: { name: 'quic', typed_config: transport }, filters: [hcm('quic', 'HTTP3', 'up')] },
          ],
        },
        { name: 'tcp', address: address(ports.tcp), filter_chains: [{ filters: [hcm('tcp', 'AUTO', 'up')] }] },
      ],
      clusters: [cluster('up', ports.upstream)],
    },
  };
}

/**
 * An Envoy that takes HTTP/1 and speaks HTTP/3 over several connections. It repeats no request: there is no retry policy.
 */
export function frontBootstrap(ports: { listen: number; quic: number; admin: number }): object {
  const transport = {
    '@type': `${TYPE}extensions.transport_sockets.quic.v3.QuicUpstreamTransport`,
    upstream_tls_context: { sni: 'quic.sluice.test', common_tls_context: {} },
  };
  return {
    admin: { address: address(ports.admin) },
    static_resources: {
      listeners: [
        { name: 'in', address: address(ports.listen), filter_chains: [{ filters: [hcm('in', 'AUTO', 'up')] }] },
      ],
      clusters: [
        {
          ...cluster('up', ports.quic, 'UDP'),
          // Envoy looks at this name, not at the type (upstream_impl.cc).
          transport_socket: { name: 'envoy.transport_sockets.quic', typed_config: transport },
          typed_extension_protocol_options: {
            'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
              '@type': `${TYPE}extensions.upstreams.http.v3.HttpProtocolOptions`,
              explicit_http_config: {
                http3_protocol_options: { quic_protocol_options: { max_concurrent_streams: 2 } },
              },
            },
          },
        },
      ],
    },
  };
}

function hcm(stat: string, codec: string, to: string): object {
  const routes = [{ match: { prefix: '/' }, route: { cluster: to, timeout: '0s' } }];
  return {
    name: 'hcm',
    typed_config: {
      '@type': `${TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`,
      stat_prefix: stat,
      codec_type: codec,
      drain_timeout: '1s',
      route_config: { virtual_hosts: [{ name: 'all', domains: ['*'], routes }] },
      http_filters: [{ name: 'router', typed_config: { '@type': `${TYPE}extensions.filters.http.router.v3.Router` } }],
    },
  };
}

function address(port: number, protocol = 'TCP'): object {
  return { socket_address: { protocol, address: '127.0.0.1', port_value: port } };
}

function cluster(name: string, port: number, protocol = 'TCP'): object {
  const endpoints = [{ lb_endpoints: [{ endpoint: { address: address(port, protocol) } }] }];
  return { name, type: 'STATIC', connect_timeout: '5s', load_assignment: { cluster_name: name, endpoints } };
}
