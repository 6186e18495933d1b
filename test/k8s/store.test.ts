import { readFileSync } from 'node:fs';
import type { KubernetesObject } from '@kubernetes/client-node';
import {
  DEFAULT_ANALYSIS,
  DEFAULT_POLICY,
  DEFAULT_STRATEGY,
  type RolloutSpec,
  type UpgradeView,
} from '@sluice/contract';
import { resolveConfig } from '@sluice/xds-server/config';
import { openController } from '@sluice/xds-server/controller';
import { KubeClient } from '@sluice/xds-server/kube/client';
import { STATE_KINDS } from '@sluice/xds-server/kube/state-crds';
import { SILENT } from '@sluice/xds-server/log';
import { newRollout } from '@sluice/xds-server/rollout/state';
import { STORE_CONFORMANCE, sampleUpgrade } from '@sluice/xds-server/store/conformance';
import { RECORD_CHUNKS } from '@sluice/xds-server/store/resource-api';
import { ResourceStore } from '@sluice/xds-server/store/resource-store';
import type { Store } from '@sluice/xds-server/store/store';
import { checkAgainstModel } from '@sluice/xds-server/testing/store-model';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { Cluster } from '../harness/k8s/cluster.ts';
import { PlainAgent } from '../harness/k8s/plain-agent.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { until } from '../harness/process.ts';

const missing = await missingTools(['etcd', 'kube-apiserver', 'kube-controller-manager', 'kubectl']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

let block: Block;
let cluster: Cluster;
let client: KubeClient;
let namespaces = 0;
const open: Store[] = [];

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  client = new KubeClient(cluster.kubeConfig);
  for (const name of Object.keys(STATE_KINDS)) {
    const crd = parse(readFileSync(new URL(`../../deploy/crds/${name}`, import.meta.url), 'utf8')) as KubernetesObject;
    await cluster.client.apply(crd);
    await cluster.client.watch<
      KubernetesObject & { status?: { conditions?: { type: string; status: string }[] | null } },
      true
    >('/apis/apiextensions.k8s.io/v1/customresourcedefinitions', ({ object }) => {
      const established = object.status?.conditions?.some(
        ({ type, status }) => type === 'Established' && status === 'True',
      );
      return (object.metadata?.name === crd.metadata?.name && established) || undefined;
    });
  }
});

afterEach(async () => {
  for (const store of open.splice(0)) await store.close();
});

afterAll(async () => {
  await cluster?.stop();
  await block?.release();
});

/** A namespace of its own for each: stores that know nothing of each other. */
async function subject() {
  const namespace = `state-${++namespaces}`;
  await cluster.namespace(namespace);
  const again = async (): Promise<ResourceStore> => {
    const store = new ResourceStore({ client, namespace, agentsMs: 10, endedMs: 10 });
    open.push(store);
    return store;
  };
  return { open: again, reopen: again, namespace };
}

describe('as every store', () => {
  it.each(STORE_CONFORMANCE.map((one) => [one.name, one] as const))('%s', async (_, one) => {
    await one.run(await subject());
  });

  it('answers as MemoryStore, whatever is done', () => checkAgainstModel(subject, 40), 120_000);
});

it('a leader whose term is over writes no rollout of a HotUpgrade any more', async () => {
  const { namespace } = await subject();
  const leader = (fence: number) => {
    const store = new ResourceStore({ client, namespace, fence: () => fence });
    open.push(store);
    return store;
  };
  const [old, next] = [leader(4), leader(5)];
  const pods = { namespace: 'shop', name: 'all', uid: 'u', container: 'proxy', provider: 'InPlace', emptyImage: 'e:1' };
  const spec = { selector: { proxies: [], labels: {} }, target: { to: '2' }, policy: DEFAULT_POLICY, pods };
  const more = { strategy: DEFAULT_STRATEGY, analysis: DEFAULT_ANALYSIS };
  const rollout = newRollout('r', { ...spec, ...more } as unknown as RolloutSpec, 1);
  const { version } = await old.insertRollout(rollout, []);
  const { version: newer } = await next.updateRollout({ ...rollout, reason: 'goes on' }, version, []);
  const late = { ...rollout, reason: 'late' };
  for (const seen of [version, newer])
    await expect(old.updateRollout(late, seen, [])).rejects.toMatchObject({ code: 'ROLLOUT_CONFLICT' });
  expect((await next.rollout('r'))?.state.reason).toBe('goes on');
});

it('what an upgrade had in chunks goes with it: the garbage collector’s work', async () => {
  const { namespace, open: openStore } = await subject();
  const store = await openStore();
  await store.insertUpgrade(sampleUpgrade('a', { phase: 'Done' }), []);
  await store.appendEnded('a', [], 1);
  const { items } = await client.list(RECORD_CHUNKS, { namespace });
  expect(items).toHaveLength(1);
  await store.prune('edge', 0);
  for (const one of items) await cluster.client.gone(one);
});

it('an upgrade costs so many requests', async () => {
  const { open: openStore } = await subject();
  const store = await openStore();
  const config = resolveConfig({ apiAddress: '127.0.0.1:0', xdsAddress: '127.0.0.1:0' });
  const controller = await openController(config, store, SILENT);
  const agent = new PlainAgent(`http://127.0.0.1:${controller.apiPort}`, 'web-1.shop');
  const call = async <T>(path: string, body?: object): Promise<T> => {
    const headers = { 'content-type': 'application/json' };
    const request = body === undefined ? {} : { method: 'POST', headers, body: JSON.stringify(body) };
    return (await fetch(`http://127.0.0.1:${controller.apiPort}/api/v1${path}`, request)).json() as Promise<T>;
  };
  try {
    await until('the agent is heard', async () => store.calls['create meshproxies']);
    const before = { ...store.calls };
    const { id } = await call<UpgradeView>('/upgrades', { proxy: 'web-1.shop', to: '1.40.0' });
    await agent.ordered('drain');
    agent.safe();
    await agent.ordered('reset');
    await until('it is done', async () => (await store.upgrade(id))?.state.phase === 'Done' || undefined);
    await store.close();
    const counted = Object.entries(store.calls).map(([key, n]) => [key, n - (before[key] ?? 0)] as const);
    const writes = counted.filter(([key]) => !/^(get|list)/.test(key));
    console.log(`requests of one upgrade: ${JSON.stringify(Object.fromEntries(counted))}`);
    // Its insert, a write for each step that is recorded, and what its agent said.
    expect(Object.fromEntries(writes)['create proxyupgrades']).toBe(1);
    expect(writes.reduce((sum, [, n]) => sum + n, 0)).toBeLessThanOrEqual(10);
  } finally {
    agent.stop();
    await controller.close();
  }
});
