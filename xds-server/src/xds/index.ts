export type { AckEvent, AckState, NackEvent } from './acks.ts';
export { type OverlayResource, SnapshotCache, type SnapshotCacheOptions, type Transform } from './cache.ts';
export type { XdsNode } from './node.ts';
export { createXdsServer, type XdsLog, type XdsServer, type XdsServerOptions } from './server.ts';
export { buildSnapshot, Encoder, type NamesByKind, type Resource, type Snapshot } from './snapshot.ts';
