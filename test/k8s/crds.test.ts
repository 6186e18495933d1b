import { readFileSync } from 'node:fs';
import type { KubernetesObject } from '@kubernetes/client-node';
import { parsePolicy } from '@sluice/contract';
import { isReason, type Kind, KubeClient } from '@sluice/xds-server/kube/client';
import { API_VERSION, CRDS } from '@sluice/xds-server/kube/crds';
import { BAD_POLICIES, GOOD_POLICIES } from '@sluice/xds-server/testing/policy-examples';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';

const missing = await missingTools(['etcd', 'kube-apiserver', 'kubectl']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

const UPGRADES: Kind = { apiVersion: API_VERSION, kind: 'HotUpgrade', plural: 'hotupgrades' };
const POLICIES: Kind = { apiVersion: API_VERSION, kind: 'DrainPolicy', plural: 'drainpolicies' };

interface Custom extends KubernetesObject {
  spec: unknown;
  status?: unknown;
}

let block: Block;
let cluster: Cluster;
let client: KubeClient;

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block, { controllerManager: false });
  client = new KubeClient(cluster.kubeConfig);
  for (const name of Object.keys(CRDS)) {
    const crd = parse(readFileSync(new URL(`../../deploy/crds/${name}`, import.meta.url), 'utf8')) as KubernetesObject;
    await cluster.client.apply(crd);
    await cluster.client.watch<Custom, true>(
      '/apis/apiextensions.k8s.io/v1/customresourcedefinitions',
      ({ object }) => {
        // `null` until the API server has looked at it.
        const { conditions } = (object.status ?? {}) as { conditions?: { type: string; status: string }[] | null };
        const established = conditions?.some(({ type, status }) => type === 'Established' && status === 'True');
        return (object.metadata?.name === crd.metadata?.name && established) || undefined;
      },
    );
  }
});

afterAll(async () => {
  await cluster?.stop();
  await block?.release();
});

const GOOD_SPEC = {
  selector: { matchLabels: { app: 'shop' } },
  container: 'proxy',
  target: { image: 'mesh/proxy:2' },
  emptyImage: 'mesh/empty:1',
};

function custom(kind: Kind, name: string, spec: unknown, status?: unknown): Custom {
  const metadata = { name, namespace: 'default' };
  return { apiVersion: kind.apiVersion, kind: kind.kind, metadata, spec, ...(status !== undefined && { status }) };
}

const tried = (kind: Kind, spec: unknown) => client.apply(kind, custom(kind, 'tried', spec), { dryRun: true });

it('the API server takes the policies that parsePolicy takes', async () => {
  for (const policy of GOOD_POLICIES) {
    parsePolicy(policy);
    await tried(POLICIES, policy);
    await tried(UPGRADES, { ...GOOD_SPEC, policy: { inline: policy } });
  }
});

it('the API server refuses the policies that parsePolicy refuses, and says why', async () => {
  for (const [policy, message] of BAD_POLICIES) {
    expect(() => parsePolicy(policy)).toThrow();
    await expect(tried(POLICIES, policy), JSON.stringify(policy)).rejects.toThrow(message);
  }
});

it.each([
  ['a version', { target: { version: '1.40.0' } }],
  ['a named policy', { policy: { name: 'gentle' } }],
  ['expressions', { selector: { matchExpressions: [{ key: 'app', operator: 'In', values: ['shop'] }] } }],
  [
    'a strategy',
    { strategy: { partition: '50%', maxUnavailable: 2, canary: 1, batches: ['10%', '50%'], pauseSeconds: 60 } },
  ],
  [
    'a named canary',
    { strategy: { canaryPods: ['web-*'], topologyKey: 'topology.kubernetes.io/zone', until: 'Reset' } },
  ],
  ['an analysis', { analysis: { maxFailedRequests: 0, maxP99Ms: 250, windowSeconds: 30 } }],
  ['OpenKruise', { provider: 'OpenKruise', emptyImage: undefined, sidecarSet: 'proxy' }],
])('a HotUpgrade with %s is taken', async (_, more) => {
  await tried(UPGRADES, { ...GOOD_SPEC, ...more });
});

it.each([
  ['neither image nor version', { target: {} }, 'exactly one of image and version is given'],
  ['both', { target: { image: 'a:1', version: '1' } }, 'exactly one of image and version is given'],
  ['a version that is no tag', { target: { version: 'a b' } }, 'target.version'],
  ['an empty selector', { selector: {} }, 'an empty selector would take every Pod'],
  [
    'In without values',
    { selector: { matchExpressions: [{ key: 'a', operator: 'In' }] } },
    'In and NotIn have values, Exists and DoesNotExist have none',
  ],
  ['a name that is no container', { container: 'Proxy' }, 'spec.container'],
  ['two policies', { policy: { inline: {}, name: 'a' } }, 'exactly one of inline and name is given'],
  [
    'rules of one name',
    { policy: { inline: { rules: [1, 2].map(() => ({ name: 'r', match: {} })) } } },
    'the names of rules are unique',
  ],
  [
    'a partition below zero',
    { strategy: { partition: -1 } },
    'spec.strategy.partition in body should be greater than or equal to 0',
  ],
  ['a partition above all', { strategy: { partition: '101%' } }, 'spec.strategy.partition in body should match'],
  ['a percentage without its sign', { strategy: { partition: '10' } }, 'spec.strategy.partition in body should match'],
  [
    'nobody at once',
    { strategy: { maxUnavailable: 0 } },
    'spec.strategy.maxUnavailable in body should be greater than or equal to 1',
  ],
  [
    'nobody at once, in percent',
    { strategy: { maxUnavailable: '0%' } },
    'spec.strategy.maxUnavailable in body should match',
  ],
  ['two canaries', { strategy: { canary: 1, canaryPods: ['a'] } }, 'at most one of canary and canaryPods is given'],
  ['an empty batch', { strategy: { batches: [1, 0] } }, 'should be greater than or equal to 1'],
  ['an analysis of nothing', { analysis: { windowSeconds: 5 } }, 'an analysis has at least one limit'],
  ['no Empty image', { emptyImage: undefined }, 'emptyImage belongs to provider InPlace'],
  ['no SidecarSet', { provider: 'OpenKruise', emptyImage: undefined }, 'sidecarSet belongs to provider OpenKruise'],
  ['a SidecarSet of nobody', { sidecarSet: 'proxy' }, 'sidecarSet belongs to provider OpenKruise'],
  ['the Empty image as target', { target: { image: 'mesh/empty:1' } }, 'the target is the Empty image'],
  ['a field that does not exist', { strategy: { maxSurge: 1 } }, 'maxSurge'],
])('a HotUpgrade with %s is refused', async (_, more, message) => {
  await expect(tried(UPGRADES, { ...GOOD_SPEC, ...more })).rejects.toThrow(message);
});

it('selector and container stay; the rest may change, and defaults are filled in', async () => {
  const made = await client.apply(UPGRADES, custom(UPGRADES, 'stays', GOOD_SPEC));
  expect(made.spec).toMatchObject({
    provider: 'InPlace',
    strategy: { partition: 0, maxUnavailable: 1, pauseSeconds: 0, paused: false },
  });
  const change = (more: object) => client.apply(UPGRADES, custom(UPGRADES, 'stays', { ...GOOD_SPEC, ...more }));
  await expect(change({ selector: { matchLabels: { app: 'other' } } })).rejects.toThrow(
    'the selector can not be changed',
  );
  await expect(change({ container: 'other' })).rejects.toThrow('the container can not be changed');
  expect((await change({ target: { image: 'mesh/proxy:3' } })).metadata?.generation).toBe(2);
});

const TIME = '2030-01-02T03:04:05Z';
const condition = (type: string, status = 'True') => ({
  type,
  status,
  reason: 'Told',
  message: '',
  lastTransitionTime: TIME,
});

it('the status is written apart from the spec, and an earlier leader can not write over a later one', async () => {
  await client.apply(UPGRADES, custom(UPGRADES, 'told', GOOD_SPEC, { phase: 'Done' }));
  const place = { namespace: 'default', name: 'told' };
  expect((await client.get<Custom>(UPGRADES, place)).status).toBeUndefined();

  const write = (status: object) =>
    client.patch<Custom>(UPGRADES, { ...place, subresource: 'status' }, 'merge', { status, spec: { container: 'x' } });
  const told = await write({
    fence: 3,
    observedGeneration: 1,
    phase: 'Progressing',
    conditions: [condition('Accepted')],
  });
  expect(told.spec).toMatchObject({ container: 'proxy' });
  expect(told.metadata?.generation).toBe(1);
  await write({ fence: 3, phase: 'Done' });
  await expect(write({ fence: 2, phase: 'Failed' })).rejects.toThrow('a later leader has written this status already');
  await expect(write({ fence: null })).rejects.toThrow('a later leader has written this status already');
  await write({ fence: 4 });

  const wrong = await write({ conditions: [condition('Accepted'), condition('Accepted')] }).catch(
    (error: unknown) => error,
  );
  expect(isReason(wrong, 'Invalid')).toBe(true);
  await expect(write({ conditions: [condition('Accepted', 'maybe')] })).rejects.toThrow('"True", "False", "Unknown"');
});

it('kubectl shows the columns, by the short names too', async () => {
  const status = { fence: 4, phase: 'Progressing', image: 'mesh/proxy:2', updated: 3, total: 20, draining: 1 };
  await client.patch(UPGRADES, { namespace: 'default', name: 'told', subresource: 'status' }, 'merge', { status });
  const lines = (await cluster.kubectl('get', 'hup', 'told')).split('\n').map((line) => line.trim().split(/\s+/));
  expect(lines[0]).toEqual(['NAME', 'TARGET', 'PHASE', 'UPDATED', 'TOTAL', 'DRAINING', 'AGE']);
  expect(lines[1]?.slice(0, 6)).toEqual(['told', 'mesh/proxy:2', 'Progressing', '3', '20', '1']);
  await client.apply(POLICIES, custom(POLICIES, 'gentle', { maxDrainMs: 0, atDeadline: 'ask' }));
  expect(await cluster.kubectl('get', 'drp')).toContain('MAX DRAIN (MS)');
  expect(await cluster.kubectl('get', 'sluice', '-o', 'name')).toContain('drainpolicy.sluice.dev/gentle');
});
