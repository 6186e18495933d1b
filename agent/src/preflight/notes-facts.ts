import { isQuic } from '@sluice/contract/presets/index';

/**
 * What a serving Envoy's admin says of the limits that it keeps by itself: parsed, nothing decided. Listeners and clusters
 * come as Any or, from our own controller, as TypedStruct; the fields in either spelling of Envoy's JSON.
 */

export interface Breakers {
  readonly cluster: string;
  readonly priority: 'default' | 'high';
  /** The thresholds that were set, by name: `max_connections` and its like. */
  readonly limits: Readonly<Record<string, number>>;
}

export interface LocalLimit {
  /** `listener in`, `route configuration routes`. */
  readonly where: string;
  /** The filter's name there. */
  readonly filter: string;
  /** What is limited: `rate`, `connections`, `bandwidth`, `concurrency`. */
  readonly what: string;
  /** Largest number and its unit, where it is given there: `100 requests per 1s`. */
  readonly count?: number;
  readonly unit?: string;
}

export interface ClusterFacts {
  readonly total: number;
  readonly breakers: readonly Breakers[];
  /** Names of those with active health checks. */
  readonly healthChecked: readonly string[];
}

export interface ListenerFacts {
  readonly limits: readonly LocalLimit[];
  /** Names of filters that ask a rate limit service. */
  readonly globalLimits: readonly string[];
  /** Listeners with TLS whose session tickets have no configured keys. */
  readonly randomTickets: readonly string[];
  /** Listeners over QUIC. */
  readonly quic: readonly string[];
}

type Json = Record<string, unknown>;

const FILTERS = 'envoy.extensions.filters.';
/** Limits that Envoy counts within one process. */
const LOCAL: Readonly<Record<string, string>> = {
  'http.local_ratelimit.v3.LocalRateLimit': 'rate',
  'network.local_ratelimit.v3.LocalRateLimit': 'rate',
  'listener.local_ratelimit.v3.LocalRateLimit': 'rate',
  'network.connection_limit.v3.ConnectionLimit': 'connections',
  'http.bandwidth_limit.v3.BandwidthLimit': 'bandwidth',
  'http.adaptive_concurrency.v3.AdaptiveConcurrency': 'concurrency',
};
const GLOBAL = [
  'http.ratelimit.v3.RateLimit',
  'network.ratelimit.v3.RateLimit',
  'http.rate_limit_quota.v3.RateLimitQuotaFilterConfig',
];
/** Clusters of the presets: nobody's traffic. */
const OURS = /^sluice_/;
const DOWNSTREAM_TLS = 'envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext';

/** `dumps`: the answers to /config_dump?resource=static_clusters and dynamic_active_clusters. */
export function clusterFacts(dumps: readonly unknown[]): ClusterFacts {
  const clusters = configs(dumps)
    .map((one) => object(one.cluster))
    .filter((one) => !OURS.test(nameOf(one)));
  return {
    total: clusters.length,
    breakers: clusters.flatMap(breakersOf),
    healthChecked: clusters.filter((one) => list(either(one, 'health_checks')).length > 0).map(nameOf),
  };
}

/** `dumps`: the answers for static_listeners, dynamic_listeners, static_route_configs and dynamic_route_configs. */
export function listenerFacts(dumps: readonly unknown[]): ListenerFacts {
  const limits: LocalLimit[] = [];
  const globalLimits = new Set<string>();
  const randomTickets = new Set<string>();
  const quic: string[] = [];
  for (const config of configs(dumps)) {
    const listener = either(object(either(config, 'active_state')), 'listener') ?? config.listener;
    const subject = object(listener ?? either(config, 'route_config'));
    const where = `${listener === undefined ? 'route configuration' : 'listener'} ${nameOf(subject)}`;
    if (listener !== undefined && isQuic(subject)) quic.push(nameOf(subject));
    walk(subject, '', (type, body, name) => {
      const kind = type.startsWith(FILTERS) ? type.slice(FILTERS.length) : '';
      const what = LOCAL[kind];
      if (what !== undefined) limits.push({ where, filter: name, what, ...amountOf(kind, body) });
      if (GLOBAL.includes(kind)) globalLimits.add(name);
      if (type === DOWNSTREAM_TLS && ticketsAreRandom(body)) randomTickets.add(nameOf(subject));
    });
  }
  return { limits, globalLimits: [...globalLimits], randomTickets: [...randomTickets], quic };
}

/** Sum of cluster.*.upstream_cx_active; undefined where the stats are left out. */
export function upstreamConnections(stats: string): number | undefined {
  const found = [...stats.matchAll(/^cluster\.(.*)\.upstream_cx_active: (\d+)$/gm)];
  if (found.length === 0) return undefined;
  return found.reduce((sum, [, name = '', n]) => sum + (OURS.test(name) ? 0 : Number(n)), 0);
}

function breakersOf(cluster: Json): Breakers[] {
  return list(either(object(either(cluster, 'circuit_breakers')), 'thresholds')).flatMap((given) => {
    const threshold = object(given);
    const limits = Object.entries(threshold)
      .filter(([name, value]) => /^max_?[A-Za-z_]+$/.test(name) && typeof value === 'number')
      .map(([name, value]) => [name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`), value as number]);
    const priority = threshold.priority === 'HIGH' ? ('high' as const) : ('default' as const);
    return limits.length === 0 ? [] : [{ cluster: nameOf(cluster), priority, limits: Object.fromEntries(limits) }];
  });
}

function amountOf(kind: string, body: Json): { count?: number; unit?: string } {
  const bucket = object(either(body, 'token_bucket'));
  const tokens = Number(either(bucket, 'max_tokens') ?? Number.NaN);
  if (Number.isFinite(tokens)) {
    const thing = kind.startsWith('http.') ? 'requests' : 'connections';
    return { count: tokens, unit: `${thing} per ${String(either(bucket, 'fill_interval') ?? 'interval')}` };
  }
  const most = Number(either(body, 'max_connections') ?? Number.NaN);
  if (Number.isFinite(most)) return { count: most, unit: 'connections' };
  const kbps = Number(either(body, 'limit_kbps') ?? Number.NaN);
  return Number.isFinite(kbps) ? { count: kbps, unit: 'KiB per second' } : {};
}

/**
 * Envoy makes a ticket key of its own for each process when none is given (docs of `session_ticket_keys`), so that a
 * ticket of one epoch means nothing to another one.
 */
function ticketsAreRandom(context: Json): boolean {
  return (
    either(context, 'session_ticket_keys') === undefined &&
    either(context, 'session_ticket_keys_sds_secret_config') === undefined &&
    either(context, 'disable_stateless_session_resumption') !== true
  );
}

/** Every typed configuration below `value`, with the name that the place gives it. */
function walk(value: unknown, name: string, visit: (type: string, body: Json, name: string) => void): void {
  if (Array.isArray(value)) {
    for (const one of value) walk(one, name, visit);
    return;
  }
  if (typeof value !== 'object' || value === null) return;
  const given = value as Json;
  const type = bare(given['@type']);
  if (type.endsWith('TypedStruct')) visit(bare(either(given, 'type_url')), object(given.value), name);
  else if (type !== '') visit(type, given, name);
  const own = typeof given.name === 'string' && given.name !== '' ? given.name : name;
  for (const [key, one] of Object.entries(given)) {
    // A map by filter name: its keys are the names.
    if (/^typed_?per_?filter_?config$/i.test(key))
      for (const [n, each] of Object.entries(object(one))) walk(each, n, visit);
    else walk(one, own, visit);
  }
}

function bare(type: unknown): string {
  return typeof type === 'string' ? type.slice(type.lastIndexOf('/') + 1) : '';
}

function configs(dumps: readonly unknown[]): Json[] {
  return dumps.flatMap((dump) => list(object(dump).configs).map(object));
}

function nameOf(value: Json): string {
  return typeof value.name === 'string' && value.name !== '' ? value.name : 'without a name';
}

function either(value: Json, snake: string): unknown {
  return value[snake] ?? value[snake.replace(/_([a-z])/g, (_, c: string) => c.toUpperCase())];
}

function object(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
