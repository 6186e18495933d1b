import type { KubernetesObject, V1Pod } from '@kubernetes/client-node';
import { CRDS } from '@sluice/xds-server/kube/crds';
import type { HotUpgrade, HotUpgradeStatus } from '@sluice/xds-server/kube/hotupgrade';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '../harness/k8s/cluster.ts';
import { HollowNodes } from '../harness/k8s/hollow.ts';
import { installSluice, startKubeController } from '../harness/k8s/installed.ts';
import { EMPTY_IMAGE } from '../harness/k8s/sidecar-pod.ts';
import { SimulatedAgents } from '../harness/k8s/simulated-agents.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { type Child, until } from '../harness/process.ts';

const missing = await missingTools(['etcd', 'kube-apiserver', 'kube-controller-manager']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

let block: Block;
let cluster: Cluster;
let hollow: HollowNodes;
let agents: SimulatedAgents;
let controller: Child;
let api: string;

interface Crd extends KubernetesObject {
  readonly spec: {
    readonly versions: readonly { readonly schema: { readonly openAPIV3Schema: Schema } }[];
  };
}
interface Schema {
  properties?: Record<string, Schema>;
  'x-kubernetes-validations'?: unknown;
}

const CURRENT = CRDS['hotupgrades.yaml'] as unknown as Crd;

/** As an earlier version of us had it: without canaries, and without two fields of the status. */
function older(): Crd {
  const crd = structuredClone(CURRENT);
  const { spec, status } = crd.spec.versions[0]?.schema.openAPIV3Schema.properties ?? {};
  const strategy = spec?.properties?.strategy;
  delete strategy?.properties?.canary;
  delete strategy?.properties?.canaryPods;
  delete strategy?.['x-kubernetes-validations'];
  delete status?.properties?.rollout;
  delete status?.properties?.deleted;
  return crd;
}

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  const kubeconfig = await installSluice(cluster);
  await cluster.client.apply(older());
  await served(false);
  hollow = await HollowNodes.start(cluster, ['hollow-1']);
  api = `127.0.0.1:${await block.port()}`;
  const log = process.env.SLUICE_K8S_LOG;
  const xds = `127.0.0.1:${await block.port()}`;
  controller = await startKubeController({ kubeconfig, api, xds, ...(log !== undefined && { log }) });
  agents = new SimulatedAgents(cluster, `http://${api}`);
}, 120_000);

afterAll(async () => {
  agents?.stop();
  await controller?.stop();
  hollow?.stop();
  await cluster?.stop();
  await block?.release();
});

/** Until the API server tells that schema: it makes its OpenAPI a moment after the CRD. */
async function served(canary: boolean): Promise<void> {
  await until('the schema is served', async () => {
    const text = JSON.stringify(await cluster.client.json('GET', '/openapi/v3/apis/sluice.dev/v1alpha1'));
    return text.includes('"canaryPods"') === canary ? true : undefined;
  });
}

/** Asked for, not watched: whenever a CRD changes the API server ends its watches, and opens none for a moment. */
function status(holds: (status: HotUpgradeStatus) => boolean): Promise<HotUpgradeStatus> {
  const shop = {
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'HotUpgrade',
    metadata: { name: 'shop', namespace: 'default' },
  };
  let last: HotUpgradeStatus | undefined;
  const look = async () => {
    last = (await cluster.client.get<HotUpgrade>(shop as HotUpgrade).catch(() => undefined))?.status;
    return last !== undefined && holds(last) ? last : undefined;
  };
  return until('that status', look, { limitMs: 60_000, everyMs: 200 }).catch((error: Error) => {
    throw new Error(`${error.message}: ${JSON.stringify(last)}`);
  });
}

it('with an older CRD nothing is begun and the status says what to do; with the new one it goes on', async () => {
  const pod: V1Pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'shop', namespace: 'default', labels: { app: 'shop' } },
    spec: {
      nodeName: 'hollow-1',
      containers: ['mesh/proxy:a', EMPTY_IMAGE].map((image, n) => ({ name: `proxy-${n + 1}`, image })),
    },
  };
  await cluster.client.apply(pod);
  const spec = {
    selector: { matchLabels: { app: 'shop' } },
    container: 'proxy',
    target: { version: 'b' },
    emptyImage: EMPTY_IMAGE,
  };
  await cluster.client.apply({
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'HotUpgrade',
    metadata: { name: 'shop', namespace: 'default' },
    spec,
  } as KubernetesObject);
  const told = await status(({ conditions }) =>
    Boolean(conditions?.some((one) => one.type === 'SchemaCurrent' && one.status === 'False')),
  );
  const { message } = told.conditions?.find((one) => one.type === 'SchemaCurrent') ?? {};
  expect(message).toContain('spec.strategy.canary');
  expect(message).toContain('apply deploy/crds');
  expect(told).toMatchObject({ phase: 'Pending', total: 1, updated: 0 });
  const ready = await (await fetch(`http://${api}/readyz`)).text();
  expect(ready).toContain('the installed CRDs lack 4 fields');

  await cluster.client.apply(CURRENT);
  await served(true);
  const done = await status((one) => one.phase === 'Done');
  expect(done).toMatchObject({ total: 1, updated: 1, deleted: 0 });
  expect(done.rollout).toBeDefined();
}, 120_000);
