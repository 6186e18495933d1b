import { EventEmitter } from 'node:events';
import { DEFAULT_POLICY, DRAIN_RESOURCE, type DrainOrder, NODE_METADATA } from '@sluice/contract';
import { LEAVE_RESOURCE } from '@sluice/contract/presets/index';
import { describe, expect, it } from 'vitest';
import { SILENT } from '../log.ts';
import { type AckEvent, SnapshotCache, type XdsNode, type XdsServer } from '../xds/index.ts';
import { drainResource, idleResources } from './orders.ts';
import { presetTransform, withIdleOrder, XdsOrders } from './xds-orders.ts';

const order: DrainOrder = {
  v: 1,
  upgradeId: 'u1',
  epoch: 3,
  version: 1,
  action: 'drain',
  policy: DEFAULT_POLICY,
  cutoffAgeMs: 0,
  issuedAt: 1,
};

function node(epoch: number, wasm: string | undefined = '/opt/sluice.wasm'): XdsNode {
  return { id: 'edge', cluster: '', metadata: {}, epoch, slot: '1', wasm, userAgentVersion: '1.38.3' };
}

function setUp() {
  const connected: XdsNode[] = [];
  const events = new EventEmitter();
  const cache = new SnapshotCache({ transform: presetTransform });
  cache.setResources(withIdleOrder());
  const server = { events, nodes: () => connected } as unknown as XdsServer;
  const orders = new XdsOrders(cache, server, SILENT);
  const connect = (one: XdsNode): void => {
    connected.push(one);
    events.emit('connect', one);
  };
  const version = (one: XdsNode) => cache.snapshotFor(one).get('ecds', DRAIN_RESOURCE)?.version;
  return { cache, orders, connect, version };
}

const ack = (to: XdsNode, version: string | undefined): AckEvent =>
  ({
    node: to,
    proxy: to.id,
    epoch: to.epoch,
    kind: 'ecds',
    resources: new Map([[DRAIN_RESOURCE, version ?? '']]),
  }) as unknown as AckEvent;

describe('drainResource', () => {
  it('carries the whole order as the configuration of the drain’s filter', () => {
    const resource = drainResource(order, '/opt/sluice.wasm');
    expect(resource.name).toBe(DRAIN_RESOURCE);
    const { config } = resource.typed_config as { config: { root_id: string; configuration: { value: string } } };
    expect(config.root_id).toBe('drain');
    expect(JSON.parse(config.configuration.value)).toEqual(order);
  });

  it('carries it as metadata to an Envoy without the filter', () => {
    const resource = drainResource(order, undefined);
    expect(resource.typed_config['@type']).toMatch(/set_metadata/);
    const { metadata } = resource.typed_config as { metadata: { value: { order: string } }[] };
    expect(JSON.parse(metadata[0]?.value.order ?? '')).toEqual(order);
  });
});

describe('XdsOrders', () => {
  it('gives an order to its epoch only; every other has the idle resource', () => {
    const { orders, connect, version } = setUp();
    connect(node(3));
    connect(node(4));
    const idle = version(node(4));
    orders.set('edge', 3, order);
    expect(version(node(3))).not.toBe(idle);
    expect(version(node(4))).toBe(idle);
    orders.clear('edge', 3);
    expect(version(node(3))).toBe(idle);
  });

  it('keeps an order for an epoch whose stream is not there yet', () => {
    const { orders, connect, version } = setUp();
    const idle = version(node(3));
    orders.set('edge', 3, order);
    expect(version(node(3))).toBe(idle);
    connect(node(3));
    expect(version(node(3))).not.toBe(idle);
  });

  it('beside an order that chooses among connections, tells those that are marked to leave, where Envoy can', () => {
    const { cache, orders, connect } = setUp();
    const able = { ...node(3), metadata: { [NODE_METADATA.leave]: '1' } };
    const unable = node(4);
    const leave = (one: XdsNode) => cache.snapshotFor(one).get('ecds', LEAVE_RESOURCE)?.version;
    const idle = leave(able);
    const idlest: DrainOrder = {
      ...order,
      policy: { ...DEFAULT_POLICY, pacing: { ...DEFAULT_POLICY.pacing, order: 'idlest' } },
    };
    connect(able);
    connect(unable);
    orders.set('edge', 3, order);
    expect(leave(able)).toBe(idle);
    orders.set('edge', 3, { ...idlest, version: 2 });
    orders.set('edge', 4, { ...idlest, epoch: 4 });
    expect(leave(able)).not.toBe(idle);
    expect(leave(unable)).toBe(idle);
    orders.set('edge', 3, { ...order, version: 3 });
    expect(leave(able)).toBe(idle);
  });

  it('tells an answer to the order from one to the idle resource before it', () => {
    const { orders, connect, version } = setUp();
    connect(node(3));
    const idle = version(node(3));
    orders.set('edge', 3, order);
    expect(orders.orderOf(ack(node(3), idle))).toBeUndefined();
    expect(orders.orderOf(ack(node(3), version(node(3))))).toEqual(order);
    expect(orders.orderOf({ ...ack(node(3), version(node(3))), kind: 'lds' })).toBeUndefined();
    expect(orders.orderOf(ack(node(4), version(node(4))))).toBeUndefined();
  });
});

it('presetTransform changes listeners only', () => {
  const [idle] = idleResources() as unknown as [Parameters<typeof presetTransform.apply>[1]];
  expect(presetTransform.apply('ecds', idle, node(1))).toBe(idle);
  const tcp = { name: 'x', typed_config: { '@type': 'type.googleapis.com/x' } };
  const listener = { name: 'db', filter_chains: [{ filters: [tcp] }] };
  const changed = presetTransform.apply('lds', listener, node(1)) as unknown as typeof listener;
  expect(changed.filter_chains[0]?.filters.map((filter) => filter.name)).toEqual(['sluice.connection', 'x']);
});
