import { type ResourceKind, typeOfKind } from '../resources/types.ts';
import type { XdsNode } from './node.ts';
import type { Settled } from './subscription.ts';

/** What a proxy's epoch said last of one kind. */
export interface AckState {
  /** Version of the last response that was taken; '' = none yet. */
  readonly version: string;
  /** Name -> version of every resource that was taken over its streams and not replaced or removed since. */
  readonly resources: ReadonlyMap<string, string>;
  /** These were refused and not taken in another version since; the resources above are still in force. */
  readonly nacked?: { readonly message: string; readonly version: string; readonly names: readonly string[] };
}

export interface AckEvent {
  readonly node: XdsNode;
  readonly proxy: string;
  readonly epoch: number;
  readonly kind: ResourceKind;
  readonly typeUrl: string;
  readonly version: string;
  /** Name -> version of the resources that this response carried. */
  readonly resources: ReadonlyMap<string, string>;
  readonly names: readonly string[];
  readonly removed: readonly string[];
}

export interface NackEvent extends AckEvent {
  readonly message: string;
}

/** The last word of every connected (proxy, epoch), by kind. */
export class Acks {
  readonly #states = new Map<string, Map<ResourceKind, AckState>>();

  static key(proxy: string, epoch: number): string {
    return `${epoch} ${proxy}`;
  }

  get(proxy: string, epoch: number, kind: ResourceKind): AckState | undefined {
    return this.#states.get(Acks.key(proxy, epoch))?.get(kind);
  }

  /** Call it when the last stream of this epoch is gone. */
  delete(proxy: string, epoch: number): void {
    this.#states.delete(Acks.key(proxy, epoch));
  }

  record(node: XdsNode, kind: ResourceKind, version: string, settled: Settled): AckEvent | NackEvent {
    const { plan } = settled;
    const key = Acks.key(node.id, node.epoch);
    const states = this.#states.get(key) ?? new Map<ResourceKind, AckState>();
    this.#states.set(key, states);
    const known = states.get(kind);
    const carried = new Map(plan.resources.map((resource) => [resource.name, resource.version]));
    const event: AckEvent = {
      node,
      proxy: node.id,
      epoch: node.epoch,
      kind,
      typeUrl: typeOfKind(kind).typeUrl,
      version,
      resources: carried,
      names: [...carried.keys()],
      removed: plan.removed,
    };
    if (settled.ok) {
      const resources = new Map(settled.full ? carried : [...(known?.resources ?? []), ...carried]);
      for (const name of plan.removed) resources.delete(name);
      const nacked = settled.full ? undefined : stillRefused(known?.nacked, [...carried.keys(), ...plan.removed]);
      states.set(kind, { version, resources, ...(nacked === undefined ? {} : { nacked }) });
      return event;
    }
    const message = settled.message ?? '';
    const nacked = { message, version, names: event.names };
    states.set(kind, { version: known?.version ?? '', resources: known?.resources ?? new Map(), nacked });
    return { ...event, message };
  }
}

/** An ACK of other resources says nothing of a refused one. */
function stillRefused(nacked: AckState['nacked'], taken: readonly string[]): AckState['nacked'] {
  if (nacked === undefined) return undefined;
  const names = nacked.names.filter((name) => !taken.includes(name));
  return names.length === 0 ? undefined : { ...nacked, names };
}
