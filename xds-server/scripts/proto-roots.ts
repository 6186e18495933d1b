/** The messages that the server speaks; everything they reach is generated, nothing else. */
export const ROOTS: Readonly<Record<string, readonly string[]>> = {
  'envoy/service/discovery/v3/discovery.proto': [
    'envoy.service.discovery.v3.DiscoveryRequest',
    'envoy.service.discovery.v3.DiscoveryResponse',
    'envoy.service.discovery.v3.DeltaDiscoveryRequest',
    'envoy.service.discovery.v3.DeltaDiscoveryResponse',
  ],
  'envoy/config/listener/v3/listener.proto': ['envoy.config.listener.v3.Listener'],
  'envoy/config/route/v3/route.proto': ['envoy.config.route.v3.RouteConfiguration'],
  // Reached through an Any only: Envoy compares the type URL itself, so it must not travel inside a TypedStruct.
  'envoy/config/route/v3/route_components.proto': ['envoy.config.route.v3.FilterConfig'],
  'envoy/config/cluster/v3/cluster.proto': ['envoy.config.cluster.v3.Cluster'],
  'envoy/config/endpoint/v3/endpoint.proto': ['envoy.config.endpoint.v3.ClusterLoadAssignment'],
  'envoy/extensions/transport_sockets/tls/v3/secret.proto': ['envoy.extensions.transport_sockets.tls.v3.Secret'],
  'envoy/service/runtime/v3/rtds.proto': ['envoy.service.runtime.v3.Runtime'],
  'envoy/config/core/v3/extension.proto': ['envoy.config.core.v3.TypedExtensionConfig'],
  'xds/type/v3/typed_struct.proto': ['xds.type.v3.TypedStruct'],
  'google/protobuf/wrappers.proto': ['google.protobuf.StringValue', 'google.protobuf.BytesValue'],
};
