/** JSON as it stands in a resource file. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export type ResourceKind = 'cds' | 'eds' | 'sds' | 'lds' | 'rds' | 'ecds' | 'rtds';

const URL_PREFIX = 'type.googleapis.com/';

interface ResourceType {
  readonly kind: ResourceKind;
  /** Full name of the message. */
  readonly message: string;
  readonly typeUrl: string;
  /** The field that holds the resource's name. */
  readonly nameField: string;
}

function type(kind: ResourceKind, message: string, nameField = 'name'): ResourceType {
  return { kind, message, typeUrl: URL_PREFIX + message, nameField };
}

/** In make-before-break order: what is referred to comes before what refers to it. */
export const RESOURCE_TYPES: readonly ResourceType[] = [
  type('cds', 'envoy.config.cluster.v3.Cluster'),
  type('eds', 'envoy.config.endpoint.v3.ClusterLoadAssignment', 'cluster_name'),
  type('sds', 'envoy.extensions.transport_sockets.tls.v3.Secret'),
  type('lds', 'envoy.config.listener.v3.Listener'),
  type('rds', 'envoy.config.route.v3.RouteConfiguration'),
  type('ecds', 'envoy.config.core.v3.TypedExtensionConfig'),
  type('rtds', 'envoy.service.runtime.v3.Runtime'),
];

const byKind = new Map(RESOURCE_TYPES.map((t) => [t.kind, t]));
const byUrl = new Map(RESOURCE_TYPES.map((t) => [t.typeUrl, t]));

/** Type URL of each kind of resource. */
export const TYPE_URL: Readonly<Record<ResourceKind, string>> = Object.fromEntries(
  RESOURCE_TYPES.map((t) => [t.kind, t.typeUrl]),
) as Record<ResourceKind, string>;

export function typeOfKind(kind: ResourceKind): ResourceType {
  return byKind.get(kind)!;
}

/** undefined: not a type that is served. */
export function typeOfUrl(typeUrl: string): ResourceType | undefined {
  return byUrl.get(typeUrl);
}

/** Resources of one kind by name: core fields in snake_case, everything inside a `typed_config` as it was written. */
export type Resources = ReadonlyMap<string, JsonObject>;
export type ResourcesByKind = ReadonlyMap<ResourceKind, Resources>;

/** One good read of the resource folder. */
export interface ResourceSet {
  /** For every proxy: the files at the top of the folder. */
  readonly shared: ResourcesByKind;
  /** Proxy name -> its own resources, from the folder of its name. One with the name of a shared one replaces it. */
  readonly byProxy: ReadonlyMap<string, ResourcesByKind>;
  readonly count: number;
}

export const EMPTY_SET: ResourceSet = { shared: new Map(), byProxy: new Map(), count: 0 };
