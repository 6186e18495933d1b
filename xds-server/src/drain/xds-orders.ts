import { DRAIN_RESOURCE, type DrainOrder, NODE_METADATA, needsMarks } from '@sluice/contract';
import { type Json, withListenerPresets } from '@sluice/contract/presets/index';
import type { Log } from '../log.ts';
import { EMPTY_SET, type JsonObject, type ResourceSet } from '../resources/types.ts';
import type { AckEvent, NackEvent, NamesByKind, SnapshotCache, Transform, XdsNode, XdsServer } from '../xds/index.ts';
import type { OrderSink } from './commands.ts';
import { type DrainResource, drainResource, idleResources, leaveResource } from './orders.ts';

const IDLE = idleResources().map((resource) => [resource.name, resource as unknown as JsonObject] as const);

/**
 * Of which nothing is said while it is not known yet which epochs drain: an order that is taken back for a moment lets requests
 * begin that the drain's filter does not see, and nobody would know of them.
 */
export const ORDER_SLOTS: NamesByKind = new Map([['ecds', new Set(IDLE.map(([name]) => name))]]);

/** The folder's set with what every epoch gets: idle resources in our slots, so that no listener waits for them. */
export function withIdleOrder(set: ResourceSet = EMPTY_SET): ResourceSet {
  const ecds = new Map([...(set.shared.get('ecds') ?? []), ...IDLE]);
  return { ...set, shared: new Map([...set.shared, ['ecds', ecds] as const]) };
}

/** Its listeners have the slot for what tells single connections to leave. */
function canLeave(node: XdsNode): boolean {
  return node.metadata[NODE_METADATA.leave] === '1';
}

/** Puts the presets into every listener that is served. */
export const presetTransform: Transform = {
  key: (node) => JSON.stringify([node.wasm ?? '', canLeave(node)]),
  apply: (kind, resource, node) => {
    if (kind !== 'lds') return resource;
    const environment = {
      proxy: node.id,
      epoch: node.epoch,
      slot: node.slot,
      ...(node.wasm === undefined ? {} : { wasmPath: node.wasm }),
      leave: canLeave(node),
      // These belong to the bootstrap: no listener takes them.
      pressureFile: '',
      adminPipe: '',
      agentSocket: '',
      orderFile: '',
    };
    return withListenerPresets(resource as Json, environment, 'ads').value as JsonObject;
  },
};

interface Given {
  readonly proxy: string;
  readonly epoch: number;
  readonly order: DrainOrder;
}

/** Serves drain orders as an overlay of their epoch, and tells when Envoy took or refused one. */
export class XdsOrders implements OrderSink {
  readonly #cache: SnapshotCache;
  readonly #server: XdsServer;
  readonly #log: Log;
  readonly #given = new Map<string, Given>();

  constructor(cache: SnapshotCache, server: XdsServer, log: Log) {
    this.#cache = cache;
    this.#server = server;
    this.#log = log;
    // Only its node tells where an Envoy has the filter, so an order may have to wait for its stream.
    server.events.on('connect', (node) => {
      const given = this.#given.get(key(node.id, node.epoch));
      if (given !== undefined) this.#overlay(given, node);
    });
  }

  set(proxy: string, epoch: number, order: DrainOrder): void {
    const given = { proxy, epoch, order };
    this.#given.set(key(proxy, epoch), given);
    const node = this.#server.nodes().find((one) => one.id === proxy && one.epoch === epoch);
    if (node !== undefined) this.#overlay(given, node);
  }

  clear(proxy: string, epoch: number): void {
    this.#given.delete(key(proxy, epoch));
    this.#cache.setOverlay(proxy, epoch, undefined);
  }

  /** The order that this answer of Envoy is about, if it is about the one in force. */
  orderOf(event: AckEvent | NackEvent): DrainOrder | undefined {
    if (event.kind !== 'ecds') return undefined;
    const given = this.#given.get(key(event.proxy, event.epoch));
    const current = this.#cache.snapshotFor(event.node).get('ecds', DRAIN_RESOURCE);
    return current !== undefined && event.resources.get(DRAIN_RESOURCE) === current.version ? given?.order : undefined;
  }

  #overlay({ proxy, epoch, order }: Given, node: XdsNode): void {
    try {
      const resources: DrainResource[] = [drainResource(order, node.wasm)];
      if (needsMarks(order.policy) && canLeave(node)) resources.push(leaveResource());
      const overlay = resources.map((one) => {
        return { kind: 'ecds' as const, name: one.name, json: one as unknown as JsonObject };
      });
      this.#cache.setOverlay(proxy, epoch, overlay);
    } catch (err) {
      // The agent has the same order over its link.
      this.#log.error({ proxy, epoch, err }, 'the drain order can not be served by xDS');
    }
  }
}

function key(proxy: string, epoch: number): string {
  return JSON.stringify([proxy, epoch]);
}
