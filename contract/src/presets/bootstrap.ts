import { knownMinor } from '../levers.ts';
import { AGENT_CLUSTER, CONTROLLER_CLUSTER, NODE_METADATA } from '../node.ts';
import {
  field,
  isObject,
  type Json,
  type OrderSource,
  objects,
  type Preset,
  type PresetEnvironment,
  withField,
} from './environment.ts';
import { leaves } from './hcm.ts';
import { withListenerPresets } from './listener.ts';
import { withPressure } from './overload.ts';
import { withStats } from './stats.ts';
import { serviceExtension } from './wasm.ts';

/**
 * Off, because 1.40's own drain resets WebSockets (envoy-facts, measured), and because its admin's drain_listeners tells
 * every connection to leave, whatever the pace of ours (measured). Not set where they do not exist: an unknown guard is
 * logged by 1.36 to 1.39 as an Envoy bug with a stack trace, and may become an invalid configuration.
 */
const OWN_DRAIN: Readonly<Record<string, string>> = {
  'envoy.reloadable_features.use_connection_event_drain': 'a drain resets WebSockets',
  'envoy.reloadable_features.non_graceful_drain_notifies_connections':
    'a handover tells all connections to leave at once',
};

export const OWN_DRAIN_GUARDS: readonly string[] = Object.keys(OWN_DRAIN);
const OWN_DRAIN_SINCE = 40;

/** Those of an Envoy of this version; undefined: nobody has looked at it, so its binary is to be asked. */
export function ownDrainGuards(version: string): readonly string[] | undefined {
  const minor = knownMinor(version);
  if (minor === undefined) return undefined;
  return minor >= OWN_DRAIN_SINCE ? OWN_DRAIN_GUARDS : [];
}

/** The user's bootstrap with all that an epoch needs from birth. Idempotent; docs/presets.md has the rules. */
export function withBootstrapPresets(bootstrap: Json, environment: PresetEnvironment): Preset {
  const warnings: string[] = [];
  const source = orderSource(bootstrap, environment);
  let value = withNode(bootstrap, source, environment, warnings);
  if (!isObject(value.admin) || !isObject(value.admin.address)) {
    const admin = isObject(value.admin) ? value.admin : {};
    value = { ...value, admin: { ...admin, address: { pipe: { path: environment.adminPipe } } } };
  }
  const { guards = [] } = environment;
  if (guards.length > 0) value = withRuntime(value, guards, warnings);
  value = withPressure(value, environment, warnings);
  value = withStats(value, warnings);
  if (environment.wasmPath !== undefined) value = withService(value, environment.wasmPath);
  value = withStaticResources(value, source, environment, warnings);
  if (environment.controller && source === 'ads') value = withAds(value);
  return { value, warnings };
}

/** Whose stream brings the drain order: our ADS, a stream of its own beside a foreign ADS, or a file of the agent's. */
export function orderSource(bootstrap: Json, environment: PresetEnvironment): OrderSource {
  if (!environment.controller) return 'file';
  const dynamic = field(bootstrap, 'dynamic_resources');
  const ads = isObject(dynamic) ? field(dynamic, 'ads_config') : undefined;
  return ads === undefined || JSON.stringify(ads).includes(CONTROLLER_CLUSTER) ? 'ads' : 'own';
}

function withNode(bootstrap: Json, source: OrderSource, environment: PresetEnvironment, warnings: string[]): Json {
  const node = isObject(bootstrap.node) ? bootstrap.node : {};
  const metadata = isObject(node.metadata) ? node.metadata : {};
  if (typeof node.id === 'string' && node.id !== '' && node.id !== environment.proxy) {
    warnings.push(
      `node.id ${JSON.stringify(node.id)} is kept; this proxy is known as ${JSON.stringify(environment.proxy)}`,
    );
  }
  return {
    ...bootstrap,
    node: {
      ...node,
      id: node.id || environment.proxy,
      cluster: node.cluster || environment.proxy,
      metadata: {
        ...metadata,
        [NODE_METADATA.proxy]: environment.proxy,
        [NODE_METADATA.epoch]: String(environment.epoch),
        [NODE_METADATA.slot]: environment.slot,
        ...(environment.wasmPath !== undefined && { [NODE_METADATA.wasm]: environment.wasmPath }),
        ...(leaves(source, environment) && { [NODE_METADATA.leave]: '1' }),
      },
    },
  };
}

function withRuntime(bootstrap: Json, guards: readonly string[], warnings: string[]): Json {
  const runtime = field(bootstrap, 'layered_runtime');
  const layers = isObject(runtime) ? objects(runtime.layers) : [{ name: 'admin', admin_layer: {} }];
  const theirs = layers.filter((l) => l.name !== 'sluice');
  for (const guard of guards) {
    if (theirs.some((l) => isSetTrue(field(l, 'static_layer'), guard.split('.')))) {
      warnings.push(`layered_runtime: ${guard} is kept on: ${OWN_DRAIN[guard]}`);
    }
  }
  if (theirs.length < layers.length) return bootstrap;
  // First = weakest: a user's own layer wins.
  const off = Object.fromEntries(guards.map((guard) => [guard, false]));
  return withField(bootstrap, 'layered_runtime', { layers: [{ name: 'sluice', static_layer: off }, ...layers] });
}

/** A runtime key may be written whole or as nested objects. */
function isSetTrue(layer: unknown, path: readonly string[]): boolean {
  if (path.length === 0) return layer === true || layer === 'true';
  if (!isObject(layer)) return false;
  return path.some((_, i) => isSetTrue(layer[path.slice(0, i + 1).join('.')], path.slice(i + 1)));
}

function withService(bootstrap: Json, wasmPath: string): Json {
  const extensions = objects(field(bootstrap, 'bootstrap_extensions'));
  if (extensions.some((e) => e.name === 'envoy.bootstrap.wasm' && JSON.stringify(e).includes('"sluice.service"')))
    return bootstrap;
  return withField(bootstrap, 'bootstrap_extensions', [...extensions, serviceExtension(wasmPath)]);
}

function withStaticResources(
  bootstrap: Json,
  source: OrderSource,
  environment: PresetEnvironment,
  warnings: string[],
): Json {
  const found = field(bootstrap, 'static_resources');
  const resources = isObject(found) ? found : {};
  const clusters = objects(resources.clusters);
  const added = [
    agentCluster(environment),
    ...(environment.controller ? [controllerCluster(environment.controller)] : []),
  ].filter((cluster) => !clusters.some((c) => c.name === cluster.name));
  const listeners = objects(resources.listeners).map((listener) => {
    const preset = withListenerPresets(listener, environment, source);
    warnings.push(...preset.warnings);
    return preset.value;
  });
  return withField(bootstrap, 'static_resources', {
    ...resources,
    ...(listeners.length > 0 && { listeners }),
    clusters: [...clusters, ...added],
  });
}

function withAds(bootstrap: Json): Json {
  const found = field(bootstrap, 'dynamic_resources');
  const dynamic = isObject(found) ? found : {};
  if (field(dynamic, 'ads_config') !== undefined) return bootstrap;
  // No time limit: an epoch that goes on without its listeners after 15 s would take over and accept nothing
  // (envoyproxy/envoy 9638). The agent has a bound on the start instead, and the epoch before goes on serving.
  const config = { ads: {}, resource_api_version: 'V3', initial_fetch_timeout: '0s' };
  return withField(bootstrap, 'dynamic_resources', {
    ...(field(dynamic, 'lds_config') === undefined && { lds_config: config }),
    ...(field(dynamic, 'cds_config') === undefined && { cds_config: config }),
    ...dynamic,
    ads_config: {
      api_type: 'GRPC',
      transport_api_version: 'V3',
      set_node_on_first_message_only: true,
      grpc_services: [{ envoy_grpc: { cluster_name: CONTROLLER_CLUSTER } }],
    },
  });
}

function agentCluster(environment: PresetEnvironment): Json {
  return {
    name: AGENT_CLUSTER,
    type: 'STATIC',
    connect_timeout: '1s',
    // A dead agent costs one failed call a tick and VM, not a queue of them.
    circuit_breakers: { thresholds: [{ max_connections: 64, max_pending_requests: 256, max_requests: 256 }] },
    load_assignment: assignment(AGENT_CLUSTER, { pipe: { path: environment.agentSocket } }),
  };
}

function controllerCluster(controller: { readonly address: string; readonly port: number }): Json {
  const literal = /^[\d.]+$|:/.test(controller.address);
  return {
    name: CONTROLLER_CLUSTER,
    type: literal ? 'STATIC' : 'STRICT_DNS',
    connect_timeout: '1s',
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
        explicit_http_config: { http2_protocol_options: { connection_keepalive: { interval: '30s', timeout: '5s' } } },
      },
    },
    load_assignment: assignment(CONTROLLER_CLUSTER, {
      socket_address: { address: controller.address, port_value: controller.port },
    }),
  };
}

function assignment(cluster: string, address: Json): Json {
  return { cluster_name: cluster, endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }] };
}
