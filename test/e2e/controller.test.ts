import type { ConnectionsView, EndedView, ExplainView, UpgradeView } from '@sluice/contract';
import { afterEach, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { type HeldRequest, held } from '../harness/held-request.ts';
import { type Mesh, startMesh } from '../harness/mesh.ts';
import { until } from '../harness/process.ts';

let mesh: Mesh | undefined;
let requests: HeldRequest[] = [];
afterEach(async () => {
  for (const request of requests) request.close();
  requests = [];
  await mesh?.close();
  mesh = undefined;
});

const POLICY = { http1: { silentIdleGraceMs: 500 } };

async function hold(): Promise<HeldRequest> {
  const one = await held(mesh?.port ?? 0);
  requests.push(one);
  return one;
}

test('explain names the connection that holds a drain up; a reset cuts it by a recorded override only', async () => {
  mesh = await startMesh({ envoy: await envoyBinary('1.36.4') });
  const { controller } = mesh;
  const { local, status } = await hold();
  const upgrade = await controller.startUpgrade('edge', await envoyBinary('1.40.0'), POLICY);
  await controller.phase(upgrade.id, ['Draining']);
  const peer = `127.0.0.1:${local}`;
  const explained = await until('the held connection is explained', async () => {
    const view = await controller.call<ExplainView>('GET', '/proxies/edge/explain');
    return view.items[0]?.wouldCut.some((one) => one.connection.peer === peer) === true ? view.items[0] : undefined;
  });
  expect(explained.safe).toBe(false);
  expect(explained.why.join(' ')).toContain(peer);
  const { items } = await controller.call<ConnectionsView>('GET', '/proxies/edge/connections?epoch=0');
  expect(items.map((one) => one.peer)).toContain(peer);

  const reset = `/upgrades/${upgrade.id}/reset`;
  await expect(controller.call('POST', reset, {})).rejects.toThrow(/409 SLUICE_RESET_PROTECTED .*would cut/);
  expect((await controller.upgrade(upgrade.id)).phase).toBe('Draining');

  await controller.call('POST', reset, { override: { by: 'jo', reason: 'the node goes down' } });
  const done = await controller.phase(upgrade.id, ['Done']);
  expect(await status).toBe(0);
  expect(done.override).toMatchObject({ by: 'jo', reason: 'the node goes down' });
  expect(done.connections?.cut.map((one) => one.peer)).toContain(peer);
  expect(done.record?.map((entry) => entry.event)).toContain('override');
});

test('policy may give up at the deadline, and the record names what it cut and why', async () => {
  mesh = await startMesh({ envoy: await envoyBinary('1.40.0') });
  const { controller } = mesh;
  const { status } = await hold();
  const policy = { ...POLICY, maxDrainMs: 1_500, atDeadline: 'reset' };
  const upgrade = await controller.startUpgrade('edge', await envoyBinary('1.38.3'), policy);
  const done = await controller.phase(upgrade.id, ['Done']);
  expect(await status).toBe(0);
  // Nobody's override: the verdict itself gives up what policy gives up, and each is named with its rule.
  expect(done.override).toBeUndefined();
  expect(done.connections?.cut).toMatchObject([{ rule: 'default', released: 'deadline' }]);
  const ended = await controller.call<EndedView>('GET', `/upgrades/${upgrade.id}/connections`);
  expect(ended.items.filter((one) => one.how === 'cut')).toMatchObject([{ lever: 'cut', released: 'deadline' }]);
  const { record } = await controller.call<UpgradeView>('GET', `/upgrades/${upgrade.id}`);
  expect(record?.find((entry) => entry.event === 'deadline')?.text).toContain('1.5 s');
  // The agent's clock began when the old epoch stopped accepting, a moment before the order was given.
  expect((done.resetAt ?? 0) - (done.drainStartedAt ?? 0)).toBeGreaterThan(1_000);
});

test('a rollback flips back while the first drain goes on; both old epochs end, nothing is lost', async () => {
  mesh = await startMesh({ envoy: await envoyBinary('1.38.3') });
  const { controller, port } = mesh;
  const load = newConnections(port, 200);
  const { status, letGo } = await hold();
  const upgrade = await controller.startUpgrade('edge', await envoyBinary('1.40.0'), POLICY);
  await controller.phase(upgrade.id, ['Draining']);
  // No upgrade made the first epoch: its agent tells what it was started from.
  const back = await controller.call<UpgradeView>('POST', `/upgrades/${upgrade.id}/rollback`, { by: 'jo' });
  await controller.phase(back.id, ['Draining', 'Done', 'Failed']);
  letGo();
  const flipped = await controller.phase(back.id, ['Done', 'Failed']);
  expect(flipped.failure).toBeUndefined();
  expect(await status).toBe(200);
  const rolledBack = await controller.phase(upgrade.id, ['RolledBack']);
  expect(rolledBack.connections?.cut).toEqual([]);
  expect((await controller.proxy('edge')).serving).toMatchObject({ epoch: 2, version: '1.38.3' });
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
});

test('a hot restart that the agent began while the controller was away is taken over and ended', async () => {
  mesh = await startMesh({ envoy: await envoyBinary('1.40.0') });
  const { controller, agent, port } = mesh;
  const load = newConnections(port, 200);
  const { status, letGo } = await hold();
  await controller.kill();
  await agent.line('link: not connected');
  agent.child.kill('SIGHUP');
  await agent.line('signal');
  // The new epoch has its listeners by xDS: it waits for the controller, and the old one serves on meanwhile.
  await controller.restart();
  await agent.line('new epoch serves');
  const { items } = await until('the drain is taken over', async () => {
    const list = await controller.call<{ items: UpgradeView[] }>('GET', '/upgrades');
    return list.items.length > 0 ? list : undefined;
  });
  letGo();
  const done = await controller.phase(items[0]!.id, ['Done']);
  expect(await status).toBe(200);
  expect(done).toMatchObject({ from: '1.40.0', to: '1.40.0', oldEpoch: 0, connections: { cut: [] } });
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
});
