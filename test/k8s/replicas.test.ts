import type { Phase, UpgradeView } from '@sluice/contract';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { HeldClients } from '../harness/held.ts';
import { Cluster } from '../harness/k8s/cluster.ts';
import { Replicas } from '../harness/k8s/replicas.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';

const missing = await missingTools(['etcd', 'kube-apiserver', 'kubectl']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

let block: Block;
let cluster: Cluster;
let replicas: Replicas;

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block, { controllerManager: false });
  replicas = await Replicas.start(cluster, block);
});

afterAll(async () => {
  await replicas?.stop();
  await cluster?.stop();
  await block?.release(process.env.KEEP === 'yes');
});

// Long enough that a kill in Draining finds the upgrade there.
const POLICY = { http1: { silentIdleGraceMs: 2_000 } };
const PHASES: readonly Phase[] = ['Preflight', 'Starting', 'Draining', 'SafeToReset', 'Resetting'];
const ALL: readonly Phase[] = ['Idle', ...PHASES, 'Done'];

/** Each line of the record once, each phase entered once. */
function once({ record = [] }: UpgradeView): void {
  expect(record.map(({ seq }) => seq)).toEqual(record.map((_, n) => n));
  expect(record.filter(({ event }) => event === 'created' || event === 'phase').map(({ phase }) => phase)).toEqual(ALL);
}

/** Of the terms of leading no two at once, and no fence twice. */
function neverTwo(): void {
  const terms = replicas.terms.toSorted((a, b) => a.fence - b.fence);
  expect(new Set(terms.map(({ id, fence }) => `${id} ${fence}`)).size).toBe(
    new Set(terms.map(({ fence }) => fence)).size,
  );
  for (const [n, { from }] of terms.entries()) {
    for (const before of terms.slice(0, n))
      if (before.until !== undefined) expect(before.until).toBeLessThanOrEqual(from);
  }
}

it.each(PHASES)(
  'the leader, which has the proxy, is killed in %s: another one goes on, nothing fails',
  async (phase) => {
    const { id: leader } = await replicas.leader();
    const proxy = await replicas.proxy(replicas.nameFor(leader, phase.toLowerCase()), await envoyBinary('1.38.3'));
    const load = newConnections(proxy.port, 100);
    const held = await HeldClients.open(proxy.port);
    const made = await replicas.call<UpgradeView>('POST', '/upgrades', {
      proxy: proxy.name,
      to: await envoyBinary('1.40.0'),
      policy: POLICY,
    });
    await replicas.phase(made.id, ALL.slice(ALL.indexOf(phase)));
    await replicas.kill(leader);
    const done = await replicas.phase(made.id, ['Done']);
    once(done);
    expect(done.connections?.cut).toEqual([]);
    expect((await replicas.leader()).id).not.toBe(leader);
    await replicas.linked(proxy.name);
    expect((await proxy.agent.serving()).epoch).toBe(1);
    expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
    held.close();
    replicas.endProxy(proxy);
    await replicas.startOne(leader);
    neverTwo();
  },
);
