import { readFileSync } from 'node:fs';
import type { KubernetesObject } from '@kubernetes/client-node';
import { KubeClient } from '@sluice/xds-server/kube/client';
import { STATE_KINDS } from '@sluice/xds-server/kube/state-crds';
import { STORE_CONFORMANCE } from '@sluice/xds-server/store/conformance';
import { ResourceStore } from '@sluice/xds-server/store/resource-store';
import type { Store } from '@sluice/xds-server/store/store';
import { checkAgainstModel } from '@sluice/xds-server/testing/store-model';
import { afterAll, afterEach, beforeAll, describe, test } from 'vitest';
import { parse } from 'yaml';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';

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
