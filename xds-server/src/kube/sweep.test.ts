import type { V1Pod } from '@kubernetes/client-node';
import { expect, it } from 'vitest';
import { SILENT } from '../log.ts';
import { sampleUpgrade } from '../store/conformance.ts';
import { ResourceStore } from '../store/resource-store.ts';
import type { AgentRow } from '../store/store.ts';
import { FakeKube } from '../testing/fake-kube.ts';
import { goneProxies, sweep } from './sweep.ts';

const NOW = 100 * 60_000;
const row = (proxy: string, more: Partial<AgentRow> = {}): AgentRow => ({
  ...{ proxy, slot: '1', agentVersion: '1', versions: [], epochs: [], seenAt: 0 },
  labels: { 'sluice.dev/pod-uid': 'u' },
  ...more,
});
const only =
  (...names: readonly string[]) =>
  (namespace: string, name: string): V1Pod | undefined =>
    names.includes(`${name}.${namespace}`) ? {} : undefined;

it('finds the proxies whose Pods are gone, and takes no other for one', () => {
  const rows = [
    row('gone.shop'),
    row('gone.shop', { slot: '2' }),
    row('there.shop'),
    row('just-heard.shop', { seenAt: NOW - 60_000 }),
    row('half.shop'),
    row('half.shop', { slot: '2', seenAt: NOW }),
    row('machine', {}),
    row('named.like-a-pod', { labels: {} }),
    row('gone.other'),
  ];
  const pod = only('there.shop');
  expect(goneProxies(rows, { pod, watch: 'shop' }, NOW)).toEqual(['gone.shop']);
  expect(goneProxies(rows, { pod }, NOW)).toEqual(['gone.shop', 'gone.other']);
});

it('forgets them with their upgrades, and keeps the others', async () => {
  const kube = new FakeKube();
  const store = new ResourceStore({ client: kube.client, namespace: 'sluice-system', agentsMs: 0, endedMs: 0 });
  for (const proxy of ['gone.shop', 'there.shop']) {
    await store.putAgent(row(proxy));
    await store.insertUpgrade(sampleUpgrade(`of-${proxy}`, { proxy }), []);
    await store.appendEnded(`of-${proxy}`, [], 1);
  }
  const end = new AbortController();
  const told: string[] = [];
  const onGone = (proxy: string) => {
    told.push(proxy);
    end.abort();
  };
  await sweep({ store, pod: only('there.shop'), onGone, log: SILENT }, end.signal);
  expect(told).toEqual(['gone.shop']);
  expect((await store.agents()).map(({ proxy }) => proxy)).toEqual(['there.shop']);
  expect((await store.upgrades()).map(({ state }) => state.proxy)).toEqual(['there.shop']);
  expect([...kube.objects.keys()].filter((key) => key.startsWith('recordchunks'))).toHaveLength(1);
  // Made anew under the same name.
  await store.putAgent(row('gone.shop', { seenAt: 5 }));
  expect(await store.agents()).toHaveLength(2);
});
