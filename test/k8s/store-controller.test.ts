import { setTimeout as delay } from 'node:timers/promises';
import type { EndedView, RolloutView, UpgradeView } from '@sluice/contract';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { ControllerProcess } from '../harness/controller.ts';
import { Cluster } from '../harness/k8s/cluster.ts';
import { installSluice, SYSTEM } from '../harness/k8s/installed.ts';
import { PlainAgent } from '../harness/k8s/plain-agent.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { until } from '../harness/process.ts';

const missing = await missingTools(['etcd', 'kube-apiserver', 'kube-controller-manager', 'kubectl']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

/** How long the API server is away. */
const AWAY_MS = 60_000;
const PATIENCE = { limitMs: 60_000, everyMs: 100 };

let block: Block;
let cluster: Cluster;
let controller: ControllerProcess;
const agents: PlainAgent[] = [];

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block);
  const kubeconfig = await installSluice(cluster);
  controller = await ControllerProcess.start({
    apiPort: await block.port(),
    xdsPort: await block.port(),
    state: '',
    log: `${block.dir}/controller.log`,
    // No file: the state is in resources, which is the default in Kubernetes.
    config: { state: undefined, kubernetes: { kubeconfig, namespace: SYSTEM } },
  });
});

afterEach(() => {
  for (const agent of agents.splice(0)) agent.stop();
});

afterAll(async () => {
  await controller?.child.stop();
  await cluster?.stop();
  await block?.release();
});

async function agent(proxy: string): Promise<PlainAgent> {
  const made = new PlainAgent(controller.url, proxy);
  agents.push(made);
  await controller.linked(proxy);
  return made;
}

/** SIGKILL, and another one in its place: it has nothing but the cluster. */
async function replaced(): Promise<void> {
  await controller.kill();
  await controller.restart();
}

function whole({ record = [] }: { readonly record?: readonly { readonly seq: number }[] }): void {
  expect(record.map(({ seq }) => seq)).toEqual(record.map((_, n) => n));
}

const starts = ({ orders }: PlainAgent) => new Set(orders.filter((one) => one.startsWith('start')));

it('a controller that is killed in mid-rollout and in mid-drain goes on from what is in the cluster', async () => {
  const [one, two, three] = await Promise.all(['fleet-1', 'fleet-2', 'fleet-3'].map(agent));
  if (one === undefined || two === undefined || three === undefined) return;
  const strategy = { canary: 0, maxUnavailable: 1, until: 'reset' };
  const wish = { to: '1.40.0', selector: { proxies: ['fleet-*'] }, strategy };
  const { id } = await controller.call<RolloutView>('POST', '/rollouts', wish);
  await one.ordered('drain');
  await controller.kill();
  // Nobody hears it but the next one.
  one.safe();
  await controller.restart();
  await one.ordered('reset');
  await two.ordered('start');
  await replaced();
  await two.ordered('drain');
  await replaced();
  two.safe();
  three.safe();
  await three.ordered('preflight');
  await replaced();
  const done = await until(
    'the rollout is done',
    async () => {
      const now = await controller.call<RolloutView>('GET', `/rollouts/${id}`);
      return now.phase === 'Done' ? now : undefined;
    },
    PATIENCE,
  );
  expect(done.summary).toMatchObject({ total: 3, upgraded: 3 });
  whole(done);
  for (const [n, member] of done.members.entries()) {
    const upgrade = await controller.upgrade(member.upgradeId as string);
    expect(upgrade.phase).toBe('Done');
    whole(upgrade);
    // One start, however often it was ordered: nothing was decided twice.
    expect(starts(agents[n] as PlainAgent)).toEqual(new Set([`start ${member.upgradeId}`]));
    expect(agents[n]?.epochs.map(({ epoch, state }) => `${epoch} ${state}`)).toEqual(['1 serving']);
  }
  const rows = (await cluster.kubectl('get', 'pup', '-n', SYSTEM, '--no-headers')).trim().split('\n');
  expect(rows.map((row) => row.split(/\s+/).slice(1, 4).join(' ')).sort()).toEqual(
    [1, 2, 3].map((n) => `fleet-${n} 1.40.0 Done`),
  );
  expect(await cluster.kubectl('get', 'pro,mpx', '-n', SYSTEM, '--no-headers')).toMatch(/1\.40\.0 +Done +3 +3 +0 +0/);
});

it('the API server is away in mid-drain: nothing is lost, and nothing is ordered that is not stored', async () => {
  const held = await agent('held');
  const { id } = await controller.startUpgrade('held', '1.40.0');
  await held.ordered('drain');
  await controller.phase(id, ['Draining']);
  await cluster.pause();
  const ready = () => fetch(`${controller.url}/readyz`);
  held.ended([1, 2, 3].map((n) => ended(n)));
  held.safe();
  const away = delay(AWAY_MS);
  const told = await until('readiness tells of it', async () => {
    const answer = await ready();
    return answer.status === 503 ? await answer.text() : undefined;
  });
  expect(told).toContain('SLUICE_KUBE_AWAY');
  await expect(controller.startUpgrade('held', '1.41.0')).rejects.toThrow('503 SLUICE_KUBE_AWAY');
  await away;
  // Safe it is, but the step to the reset is not stored.
  expect(held.orders.filter((one) => one.startsWith('reset'))).toEqual([]);
  expect((await controller.upgrade(id).catch(() => undefined))?.phase).not.toBe('Resetting');
  held.ended([4, 5].map((n) => ended(n)));
  await cluster.resume();
  await held.ordered('reset');
  const done = await controller.phase(id, ['Done']);
  whole(done);
  expect(done.connections).toMatchObject({ old: 3, drained: 3, cut: [] });
  // Ends of connections are stored a moment after they are heard; the upgrade does not wait for that.
  const known = () => controller.call<EndedView>('GET', `/upgrades/${id}/connections`);
  const { items } = await until('every end is stored', async () => {
    const found = await known();
    return found.items.length >= 5 ? found : undefined;
  });
  expect(items.map(({ connection }) => connection.id)).toEqual(['1', '2', '3', '4', '5']);
  await until('it is ready again', async () => ((await ready()).ok ? true : undefined));
  const all = await controller.call<{ items: UpgradeView[] }>('GET', '/upgrades');
  expect(all.items.filter(({ proxy }) => proxy === 'held').map((one) => one.id)).toEqual([id]);
});

it('killed while the API server is away: the next one waits for it, and goes on', async () => {
  const dead = await agent('dead');
  const { id } = await controller.startUpgrade('dead', '1.40.0');
  await dead.ordered('drain');
  await controller.phase(id, ['Draining']);
  await cluster.pause();
  await controller.kill();
  dead.safe();
  // It is there long before the API server is.
  await Promise.all([controller.restart(), cluster.resume()]);
  await dead.ordered('reset');
  whole(await controller.phase(id, ['Done']));
  expect(starts(dead)).toEqual(new Set([`start ${id}`]));
});

function ended(n: number) {
  const connection = { epoch: 0, id: String(n), peer: 'p:1', local: 'l:1', listener: 'in', openedAt: 0 };
  return {
    ...{ connection: { ...connection, protocol: 'http2' as const }, at: n, how: 'left' as const },
    ...{ lever: 'age-pressure' as const, reason: 'told-to-leave' as const, rule: 'default' },
  };
}
