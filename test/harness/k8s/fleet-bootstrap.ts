import { SIDECAR_PORTS } from './sidecar-pod.ts';

const TYPE = 'type.googleapis.com/envoy.';

/**
 * One listener, to which everything that comes into the Pod is redirected, in front of an upstream outside the Pods: one process
 * that sees the requests of all of them.
 */
export function fleetBootstrap(host: string, port: number): object {
  const address = (to: string, of: number) => ({ socket_address: { address: to, port_value: of } });
  const hcm = {
    '@type': `${TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`,
    stat_prefix: 'inbound',
    drain_timeout: '1s',
    route_config: {
      virtual_hosts: [
        { name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, route: { cluster: 'up', timeout: '60s' } }] },
      ],
    },
    http_filters: [{ name: 'router', typed_config: { '@type': `${TYPE}extensions.filters.http.router.v3.Router` } }],
  };
  const endpoints = [{ lb_endpoints: [{ endpoint: { address: address(host, port) } }] }];
  return {
    static_resources: {
      listeners: [
        {
          name: 'inbound',
          traffic_direction: 'INBOUND',
          address: address('0.0.0.0', SIDECAR_PORTS.inbound),
          filter_chains: [{ filters: [{ name: 'hcm', typed_config: hcm }] }],
        },
      ],
      clusters: [
        { name: 'up', type: 'STATIC', connect_timeout: '5s', load_assignment: { cluster_name: 'up', endpoints } },
      ],
    },
  };
}
