export { decodeMessage, encodeMessage } from './encode.ts';
export { type LoadCache, type LoadedResource, loadResources, parseResources } from './load.ts';
export {
  EMPTY_SET,
  type Json,
  type JsonObject,
  RESOURCE_TYPES,
  type ResourceKind,
  type ResourceSet,
  type Resources,
  type ResourcesByKind,
  TYPE_URL,
} from './types.ts';
export { type WatchOptions, watchResources } from './watch.ts';
