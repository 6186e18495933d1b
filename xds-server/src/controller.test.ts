import { join } from 'node:path';
import type { ExplainView, ProxyView, UpgradeView } from '@sluice/contract';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  api,
  begin,
  close,
  connect,
  controller,
  during,
  ended,
  folder,
  open,
  passed,
  reaches,
  served,
  serving,
  start,
  toDraining,
} from './testing/controller-rig.ts';
import { epochStatus, type FakeAgent, verdict } from './testing/fake-agent.ts';

beforeEach(open);
afterEach(close);

describe('an upgrade over the real link', () => {
  it('goes from Idle to Done, and its record tells the story', async () => {
    const { agent, id } = await toDraining();
    agent.send({ type: 'orderApplied', upgradeId: id, epoch: 0, version: 1, via: 'link', at: Date.now() });
    agent.send({ type: 'verdict', upgradeId: id, epoch: 0, verdict: verdict(false) });
    agent.send({ type: 'verdict', upgradeId: id, epoch: 0, verdict: verdict(true) });
    const reset = await agent.next('reset');
    expect(reset).toMatchObject({ upgradeId: id, epoch: 0 });
    expect(reset).not.toHaveProperty('override');
    agent.send(ended(id));
    await reaches(id, 'Done');
    const { body } = await api<UpgradeView>('GET', `/upgrades/${id}`);
    expect(body).toMatchObject({
      from: '1.38.3',
      to: '1.40.0',
      epoch: 1,
      oldEpoch: 0,
      order: { via: 'link' },
      connections: { old: 3, drained: 3, cut: [] },
    });
    const phases = body.record?.filter((entry) => entry.event === 'phase').map((entry) => entry.phase);
    expect(phases).toEqual(['Preflight', 'Starting', 'Draining', 'SafeToReset', 'Resetting', 'Done']);
    expect(body.record?.map((entry) => entry.seq)).toEqual(body.record?.map((_, n) => n));
    const metrics = await (await fetch(`http://127.0.0.1:${controller.apiPort}/metrics`)).text();
    expect(metrics).toContain('sluice_upgrades_ended_total{phase="Done"} 1');
    expect(metrics).toContain('sluice_connections_drained_total 3');
  });

  it('ends as Failed with the name of the check that refused', async () => {
    const { agent, id } = await begin();
    await agent.next('preflight');
    const refused = { name: 'bootstrap', ok: false, found: 'no such cluster', code: 'SLUICE_PREFLIGHT_BOOTSTRAP' };
    agent.send({ type: 'preflight', upgradeId: id, ok: false, checks: [refused] });
    expect(await reaches(id, 'Failed')).toMatchObject({
      reason: 'bootstrap: no such cluster',
      failure: { code: 'SLUICE_PREFLIGHT_BOOTSTRAP' },
    });
  });

  it('refuses a reset with a protected connection left, names it, and obeys a recorded override', async () => {
    const { agent, id } = await toDraining();
    agent.send({ type: 'verdict', upgradeId: id, epoch: 0, verdict: verdict(false) });
    // The answer to a question comes after the verdict was taken: one link, one order.
    const asked = api<{ items: unknown[] }>('GET', '/proxies/edge/connections');
    const { requestId } = await agent.next('connections');
    agent.send({ type: 'connections', requestId, connections: [], truncated: false });
    expect((await asked).body.items).toEqual([]);
    const refused = await api<{ code: string; message: string }>('POST', `/upgrades/${id}/reset`, {});
    expect(refused).toMatchObject({ status: 409, body: { code: 'SLUICE_RESET_PROTECTED' } });
    expect(refused.body.message).toContain('10.0.0.9:4711 (tcp)');
    const { body: explain } = await api<ExplainView>('GET', '/proxies/edge/explain');
    expect(explain.items[0]).toMatchObject({ safe: false, protected: 1 });
    expect(explain.items[0]?.why.join(' ')).toMatch(/10\.0\.0\.9:4711 on ingress \(tcp, 9 s old\) holds a TCP session/);
    const override = { by: 'jo', reason: 'disk is full' };
    expect((await api<UpgradeView>('POST', `/upgrades/${id}/reset`, { override })).body.phase).toBe('Resetting');
    expect(await agent.next('reset')).toMatchObject({ override });
    const cut = [verdict(false).held[0]!.connection];
    agent.send({ ...ended(id), old: 1, drained: 0, cut });
    expect(await reaches(id, 'Done')).toMatchObject({ override, connections: { drained: 0, cut: [{ id: '7' }] } });
  });

  it('queues a second upgrade until the first serves, and drains both side by side', async () => {
    const { agent, id } = await begin();
    const second = (await api<UpgradeView>('POST', '/upgrades', { proxy: 'edge', to: '1.38.3' })).body;
    expect(second.phase).toBe('Idle');
    await agent.next('preflight');
    agent.send(passed(id));
    await agent.next('start');
    agent.send(served(id));
    expect(await agent.next('preflight')).toMatchObject({ upgradeId: second.id });
    agent.send(passed(second.id));
    await agent.next('start');
    agent.send({ ...served(second.id), epoch: 2, oldEpoch: 1 });
    await reaches(second.id, 'Draining');
    const { body } = await api<ProxyView>('GET', '/proxies/edge');
    expect(body.upgrades).toEqual([id, second.id]);
  });

  it('flips back by another upgrade, and ends as RolledBack', async () => {
    const { agent, id } = await toDraining();
    const ask = () => api<UpgradeView>('POST', `/upgrades/${id}/rollback`, { by: 'jo' });
    const [{ body: back }, { body: twin }] = await Promise.all([ask(), ask()]);
    expect(back).toMatchObject({ rollbackOf: id, target: { to: '1.38.3' } });
    expect(twin.id).toBe(back.id);
    expect((await ask()).body.id).toBe(back.id);
    await agent.next('preflight');
    agent.send(passed(back.id));
    await agent.next('start');
    agent.send({ ...served(back.id), epoch: 2, oldEpoch: 1 });
    await reaches(back.id, 'Draining');
    agent.send({ type: 'verdict', upgradeId: id, epoch: 0, verdict: verdict(true) });
    await agent.next('reset');
    agent.send(ended(id));
    await reaches(id, 'RolledBack');
  });

  it('makes an upgrade of what an agent proposes', async () => {
    const agent = await connect({ epochs: serving });
    agent.send({ type: 'propose', target: { to: '/opt/envoy', bootstrap: '/etc/b.yaml' }, reason: 'SIGHUP' });
    expect(await agent.next('preflight')).toMatchObject({ target: { to: '/opt/envoy', bootstrap: '/etc/b.yaml' } });
  });
});

describe('a controller that was killed', () => {
  const restart = async (agent: FakeAgent) => {
    await controller.close();
    await agent.ended;
    await start();
  };

  it('asks for the preflight again', async () => {
    const { agent, id } = await begin();
    await agent.next('preflight');
    await restart(agent);
    const again = await connect({ epochs: serving });
    expect(await again.next('preflight')).toMatchObject({ upgradeId: id });
  });

  it('finds that the new epoch served meanwhile, and gives the order', async () => {
    const { agent, id } = await begin();
    await agent.next('preflight');
    agent.send(passed(id));
    await agent.next('start');
    await restart(agent);
    const again = await connect({ epochs: during(id) });
    expect(await again.next('drain')).toMatchObject({ order: { upgradeId: id, epoch: 0 } });
    await reaches(id, 'Draining');
  });

  it('orders the start again when the agent knows nothing of it', async () => {
    const { agent, id } = await begin();
    await agent.next('preflight');
    agent.send(passed(id));
    await agent.next('start');
    await restart(agent);
    const again = await connect({ epochs: serving });
    expect(await again.next('start')).toMatchObject({ upgradeId: id });
  });

  it('gives the same order again in Draining and takes the verdict from the hello', async () => {
    const { agent, id } = await toDraining();
    await restart(agent);
    const [old, fresh] = during(id);
    const again = await connect({ epochs: [{ ...old!, verdict: verdict(true) }, fresh!] });
    expect(await again.next('drain')).toMatchObject({ order: { upgradeId: id } });
    await again.next('reset');
    again.send(ended(id));
    await reaches(id, 'Done');
  });

  it('authorises the reset again in Resetting', async () => {
    const { agent, id } = await toDraining();
    agent.send({ type: 'verdict', upgradeId: id, epoch: 0, verdict: verdict(true) });
    await agent.next('reset');
    await restart(agent);
    const again = await connect({ epochs: during(id) });
    expect(await again.next('reset')).toMatchObject({ upgradeId: id, epoch: 0 });
    again.send(ended(id));
    await reaches(id, 'Done');
  });

  it('sees that the old epoch ended while it was away', async () => {
    const { agent, id } = await toDraining();
    await restart(agent);
    await connect({ epochs: [epochStatus(1, 'serving', { upgradeId: id })] });
    await reaches(id, 'Done');
  });

  it('still ends as RolledBack when it was killed during the rollback', async () => {
    const { agent, id } = await toDraining();
    const { body: back } = await api<UpgradeView>('POST', `/upgrades/${id}/rollback`, {});
    await agent.next('preflight');
    agent.send(passed(back.id));
    await agent.next('start');
    agent.send({ ...served(back.id), epoch: 2, oldEpoch: 1 });
    await reaches(back.id, 'Draining');
    await restart(agent);
    const again = await connect({
      epochs: [
        epochStatus(0, 'draining', { upgradeId: id, verdict: verdict(true) }),
        epochStatus(1, 'draining', { upgradeId: back.id }),
        epochStatus(2, 'serving', { upgradeId: back.id }),
      ],
    });
    expect(await again.next('reset')).toMatchObject({ upgradeId: id, epoch: 0 });
    again.send(ended(id));
    await reaches(id, 'RolledBack');
  });

  it('still knows the proxies', async () => {
    const { agent } = await begin();
    await restart(agent);
    const { body } = await api<ProxyView>('GET', '/proxies/edge');
    expect(body).toMatchObject({ proxy: 'edge', connected: false, epochs: [{ epoch: 0, state: 'serving' }] });
  });
});

describe('a drain that an agent began by itself', () => {
  const alone = (upgradeId?: string) => [
    epochStatus(0, 'draining', upgradeId === undefined ? {} : { upgradeId }),
    epochStatus(1, 'serving'),
  ];

  it('is taken over, once, and ended by the same rules', async () => {
    const agent = await connect({ epochs: alone('local-1') });
    expect(await agent.next('drain')).toMatchObject({ order: { upgradeId: 'local-1', epoch: 0 } });
    agent.send({ type: 'epochs', epochs: alone('local-1') });
    agent.send({ type: 'verdict', upgradeId: 'local-1', epoch: 0, verdict: verdict(true) });
    expect(await agent.next('reset')).toMatchObject({ upgradeId: 'local-1', epoch: 0 });
    agent.send(ended('local-1'));
    expect(await reaches('local-1', 'Done')).toMatchObject({ from: '1.38.3', to: '1.40.0', epoch: 1, oldEpoch: 0 });
    const { body } = await api<{ items: UpgradeView[] }>('GET', '/upgrades');
    expect(body.items).toHaveLength(1);
  });

  it('is taken over from a controller whose state was lost', async () => {
    const { agent, id } = await toDraining();
    await controller.close();
    await agent.ended;
    await start({ state: join(folder, 'other.db') });
    const again = await connect({ epochs: during(id) });
    expect(await again.next('drain')).toMatchObject({ order: { upgradeId: id, epoch: 0 } });
  });

  it('is not made of an upgrade that is on its way', async () => {
    const { agent, id } = await begin();
    await agent.next('preflight');
    agent.send(passed(id));
    await agent.next('start');
    agent.send({ type: 'epochs', epochs: during(id) });
    agent.send(served(id));
    await reaches(id, 'Draining');
    const { body } = await api<{ items: UpgradeView[] }>('GET', '/upgrades');
    expect(body.items.map((one) => one.id)).toEqual([id]);
  });

  it('gets a name of its own when its agent knows none', async () => {
    const agent = await connect({ epochs: alone() });
    const { order } = await agent.next('drain');
    agent.send({ type: 'verdict', upgradeId: '', epoch: 0, verdict: verdict(true) });
    expect(await agent.next('reset')).toMatchObject({ upgradeId: order.upgradeId });
  });
});

describe('the API', () => {
  it.each([
    ['GET', '/proxies/nobody', undefined, 404, 'SLUICE_PROXY_UNKNOWN'],
    ['GET', '/upgrades/none', undefined, 404, 'SLUICE_UPGRADE_UNKNOWN'],
    ['POST', '/upgrades/none/abort', {}, 404, 'SLUICE_UPGRADE_UNKNOWN'],
    ['POST', '/upgrades', { proxy: 'nobody', to: '1' }, 404, 'SLUICE_PROXY_UNKNOWN'],
    ['POST', '/upgrades', { proxy: 'edge' }, 400, 'SLUICE_INPUT_INVALID'],
    ['POST', '/upgrades', 'text', 400, 'SLUICE_INPUT_INVALID'],
    ['GET', '/nothing', undefined, 404, 'SLUICE_INPUT_INVALID'],
  ])('%s %s %j is %d %s', async (method, path, body, status, code) => {
    await connect();
    const answer = await api<{ code: string; message: string; hint: string }>(method, path, body);
    expect(answer).toMatchObject({ status, body: { code } });
    expect(answer.body.hint).not.toBe('');
  });

  it('refuses a wrong policy by its path', async () => {
    const agent = await connect({ epochs: serving });
    await agent.next('welcome');
    const policy = { maxDrainMs: 'long' };
    const answer = await api<{ message: string }>('POST', '/upgrades', { proxy: 'edge', to: '1.40.0', policy });
    expect(answer.status).toBe(400);
    expect(answer.body.message).toContain('policy.maxDrainMs');
  });

  it('passes a check to the agent and answers what it found', async () => {
    const agent = await connect({ epochs: serving });
    await agent.next('welcome');
    const asked = api('POST', '/proxies/edge/check', { to: '1.40.0' });
    const { requestId } = await agent.next('check');
    agent.send({ type: 'checked', requestId, ok: true, checks: [{ name: 'binary', ok: true, found: 'runs' }] });
    expect(await asked).toMatchObject({ status: 200, body: { proxy: 'edge', ok: true, checks: [{ name: 'binary' }] } });
  });

  it('answers a question at once when its agent goes', async () => {
    const agent = await connect({ epochs: serving });
    await agent.next('welcome');
    const asked = api('GET', '/proxies/edge/connections');
    await agent.next('connections');
    agent.close();
    expect(await asked).toMatchObject({ status: 503, body: { code: 'SLUICE_AGENT_AWAY' } });
  });

  it('aborts what has not served yet, and not what has', async () => {
    const { agent, id } = await begin();
    await agent.next('preflight');
    expect((await api<UpgradeView>('POST', `/upgrades/${id}/abort`)).body.phase).toBe('Failed');
    expect(await agent.next('abort')).toMatchObject({ upgradeId: id });
    const next = (await api<UpgradeView>('POST', '/upgrades', { proxy: 'edge', to: '1.40.0' })).body;
    await agent.next('preflight');
    agent.send(passed(next.id));
    await agent.next('start');
    agent.send(served(next.id));
    await reaches(next.id, 'Draining');
    const late = await api('POST', `/upgrades/${next.id}/abort`);
    expect(late).toMatchObject({ status: 409, body: { code: 'SLUICE_PHASE_REFUSED' } });
  });

  it('is alive and ready', async () => {
    for (const path of ['/livez', '/readyz']) {
      expect((await fetch(`http://127.0.0.1:${controller.apiPort}${path}`)).status).toBe(200);
    }
  });
});
