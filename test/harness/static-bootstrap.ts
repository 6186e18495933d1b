/** A user's bootstrap: one HTTP listener on `listen`, everything routed to one upstream; no admin, no node. */
export function staticBootstrap(listen: number, upstreamPort: number): unknown {
  const address = (p: number) => ({ socket_address: { address: '127.0.0.1', port_value: p } });
  const hcm = {
    '@type': 'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
    stat_prefix: 'in',
    route_config: {
      virtual_hosts: [{ name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, route: { cluster: 'up' } }] }],
    },
    http_filters: [
      {
        name: 'router',
        typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router' },
      },
    ],
  };
  // After a crash the whole backlog arrives at once: Envoy's default of 1,024 pending requests would answer 503 to a part
  // of it on a slow machine, by the user's own limit.
  const breakers = { thresholds: [{ max_connections: 20_000, max_pending_requests: 20_000, max_requests: 20_000 }] };
  const endpoints = [{ lb_endpoints: [{ endpoint: { address: address(upstreamPort) } }] }];
  return {
    static_resources: {
      listeners: [
        { name: 'in', address: address(listen), filter_chains: [{ filters: [{ name: 'hcm', typed_config: hcm }] }] },
      ],
      clusters: [
        {
          name: 'up',
          type: 'STATIC',
          connect_timeout: '5s',
          circuit_breakers: breakers,
          load_assignment: { cluster_name: 'up', endpoints },
        },
      ],
    },
  };
}
