import type { KubernetesObject, V1Pod } from '@kubernetes/client-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';

const missing = await missingTools(['etcd', 'kube-apiserver']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

let block: Block;
let cluster: Cluster;

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block, { controllerManager: false });
});

afterAll(async () => {
  await cluster?.stop();
  await block?.release();
});

const PODS = '/api/v1/namespaces/default/pods';

function pod(name: string, image: string): V1Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default' },
    spec: { nodeName: 'nowhere', containers: [{ name: 'proxy', image }] },
  };
}

it('a custom resource is validated by its CEL rules', async () => {
  const crd = {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'widgets.test.sluice' },
    spec: {
      group: 'test.sluice',
      scope: 'Namespaced',
      names: { plural: 'widgets', singular: 'widget', kind: 'Widget' },
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          subresources: { status: {} },
          schema: {
            openAPIV3Schema: {
              type: 'object',
              properties: {
                spec: {
                  type: 'object',
                  properties: { low: { type: 'integer' }, high: { type: 'integer' } },
                  'x-kubernetes-validations': [{ rule: 'self.low <= self.high', message: 'low is above high' }],
                },
              },
            },
          },
        },
      ],
    },
  };
  await cluster.client.apply(crd as KubernetesObject);
  const path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
  await cluster.client.watch<KubernetesObject & { status?: { conditions?: { type: string; status: string }[] } }, true>(
    path,
    ({ object }) =>
      object.status?.conditions?.some(({ type, status }) => type === 'Established' && status === 'True') || undefined,
  );
  const widget = (low: number) =>
    ({
      apiVersion: 'test.sluice/v1',
      kind: 'Widget',
      metadata: { name: `w${low}`, namespace: 'default' },
      spec: { low, high: 2 },
    }) as KubernetesObject;
  await cluster.client.apply(widget(1));
  await expect(cluster.client.apply(widget(3))).rejects.toThrow('low is above high');
});

it('a Pod on a node: watched, and the image of a container is changed in place, but not its environment', async () => {
  const { client } = cluster;
  const one = await client.apply(pod('one', 'proxy:1'));
  const changed = client.watch<V1Pod, V1Pod>(PODS, ({ object }) =>
    object.spec?.containers[0]?.image === 'proxy:2' ? object : undefined,
  );
  const container = (change: object) => ({ spec: { containers: [{ name: 'proxy', ...change }] } });
  await client.patch(one, container({ image: 'proxy:2' }));
  expect((await changed).metadata?.generation).toBe(2);
  await expect(client.patch(one, container({ env: [{ name: 'A', value: 'b' }] }))).rejects.toThrow('may not change');
});

it('the API server goes away and comes back with what was stored', async () => {
  await cluster.client.apply(pod('stays', 'proxy:1'));
  await cluster.pause();
  await expect(cluster.client.text('/readyz')).rejects.toThrow();
  await cluster.resume();
  const { spec } = await cluster.client.core.readNamespacedPod({ namespace: 'default', name: 'stays' });
  expect(spec?.containers[0]?.image).toBe('proxy:1');
});
