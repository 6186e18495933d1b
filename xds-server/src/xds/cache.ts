import type { JsonObject, ResourceKind, ResourceSet, Resources, ResourcesByKind } from '../resources/types.ts';
import { EMPTY_SET, RESOURCE_TYPES } from '../resources/types.ts';
import type { XdsNode } from './node.ts';
import { buildSnapshot, Encoder, type NamesByKind, type Snapshot } from './snapshot.ts';

/** JSON -> JSON, for every resource before it is encoded (the presets). */
export interface Transform {
  /** Nodes with the same key get the same result, which is then made once for all of them. */
  key(node: XdsNode): string;
  apply(kind: ResourceKind, resource: JsonObject, node: XdsNode): JsonObject;
}

export interface OverlayResource {
  readonly kind: ResourceKind;
  readonly name: string;
  /** As in a resource file, without "@type". */
  readonly json: JsonObject;
}

export interface SnapshotCacheOptions {
  readonly transform?: Transform;
  /** Called after each change that may concern connected streams; names are absent when it concerns all. */
  readonly onChange?: (proxy?: string, epoch?: number) => void;
  /** What no epoch without an overlay gets for now, because it may be about to get one. After a change the streams are to be refreshed. */
  readonly withheld?: () => NamesByKind | undefined;
}

/** Snapshots by proxy and epoch: the folder's set, the proxy's own resources, and what only this epoch gets. */
export class SnapshotCache {
  readonly #options: SnapshotCacheOptions;
  readonly #encoder = new Encoder();
  #set: ResourceSet = EMPTY_SET;
  readonly #overlays = new Map<string, readonly OverlayResource[]>();
  /** Forgotten as a whole when the set changes; streams keep what they use. */
  #snapshots = new Map<string, Snapshot>();
  #transformed = new WeakMap<JsonObject, Map<string, JsonObject>>();

  constructor(options: SnapshotCacheOptions = {}) {
    this.#options = options;
  }

  get resources(): ResourceSet {
    return this.#set;
  }

  setResources(set: ResourceSet): void {
    if (set === this.#set) return;
    this.#set = set;
    this.#snapshots = new Map();
    this.#options.onChange?.();
  }

  /**
   * What this epoch gets on top, replacing resources of the same name; undefined takes it all back. Replace an
   * ECDS resource rather than take it back: SotW has no word for its removal, and Envoys 1.36.4 and 1.40.0 keep the filter
   * (over delta they go back to its default_config). Throws
   * RESOURCE_INVALID, and changes nothing, when one of them is not a resource of its kind.
   */
  setOverlay(proxy: string, epoch: number, overlay: readonly OverlayResource[] | undefined): void {
    for (const { kind, name, json } of overlay ?? []) this.#encoder.encode(kind, name, json);
    const key = overlayKey(proxy, epoch);
    if (overlay === undefined && !this.#overlays.has(key)) return;
    if (overlay === undefined) this.#overlays.delete(key);
    else this.#overlays.set(key, overlay);
    for (const known of this.#snapshots.keys()) if (known.endsWith(`|${key}`)) this.#snapshots.delete(known);
    this.#options.onChange?.(proxy, epoch);
  }

  overlay(proxy: string, epoch: number): readonly OverlayResource[] | undefined {
    return this.#overlays.get(overlayKey(proxy, epoch));
  }

  /** The same object for the same content: streams compare it to know whether there is something to send. */
  snapshotFor(node: XdsNode): Snapshot {
    const own = this.#set.byProxy.get(node.id);
    const epochKey = overlayKey(node.id, node.epoch);
    const overlay = this.#overlays.get(epochKey);
    const withheld = overlay === undefined ? this.#options.withheld?.() : undefined;
    const key = [
      withheld === undefined ? '' : 'withheld',
      this.#options.transform?.key(node) ?? '',
      own === undefined ? '' : node.id,
      overlay === undefined ? '' : epochKey,
    ].join('|');
    const known = this.#snapshots.get(key);
    if (known !== undefined) return known;
    const snapshot = buildSnapshot(this.#merge(node, own, overlay, withheld), this.#encoder, withheld);
    this.#snapshots.set(key, snapshot);
    return snapshot;
  }

  #merge(
    node: XdsNode,
    own: ResourcesByKind | undefined,
    overlay: readonly OverlayResource[] | undefined,
    withheld: NamesByKind | undefined,
  ): ResourcesByKind {
    const merged = new Map<ResourceKind, Map<string, JsonObject>>();
    for (const { kind } of RESOURCE_TYPES) {
      const byName = new Map<string, JsonObject>();
      const add = (resources: Resources | undefined): void => {
        for (const [name, json] of resources ?? []) byName.set(name, this.#transform(kind, json, node));
      };
      add(this.#set.shared.get(kind));
      add(own?.get(kind));
      for (const name of withheld?.get(kind) ?? []) byName.delete(name);
      merged.set(kind, byName);
    }
    for (const { kind, name, json } of overlay ?? []) merged.get(kind)!.set(name, json);
    return merged;
  }

  #transform(kind: ResourceKind, json: JsonObject, node: XdsNode): JsonObject {
    const { transform } = this.#options;
    if (transform === undefined) return json;
    const key = transform.key(node);
    const results = this.#transformed.get(json) ?? new Map<string, JsonObject>();
    this.#transformed.set(json, results);
    const known = results.get(key);
    if (known !== undefined) return known;
    const result = transform.apply(kind, json, node);
    results.set(key, result);
    return result;
  }
}

function overlayKey(proxy: string, epoch: number): string {
  return `${epoch} ${proxy}`;
}
