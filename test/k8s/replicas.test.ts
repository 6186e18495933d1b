import { createLink } from '@sluice/agent/link/index';
import {
  type EndedView,
  type ExplainView,
  type Hello,
  type Phase,
  PROTOCOL_VERSION,
  type ProxyView,
  type RolloutView,
  type UpgradeView,
} from '@sluice/contract';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { HeldClients } from '../harness/held.ts';
import { Cluster } from '../harness/k8s/cluster.ts';
import { Replicas } from '../harness/k8s/replicas.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { until } from '../harness/process.ts';

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

// What one test left dead would fail each one after it.
afterEach(async () => {
  for (const { id, child } of replicas?.all ?? []) if (!child.running) await replicas.startOne(id);
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
    for (const before of terms.slice(0, n)) expect(before.until).toBeDefined();
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
    const killed = replicas.killAt(leader, phase);
    const made = await replicas.upgrade({
      proxy: proxy.name,
      to: await envoyBinary('1.40.0'),
      policy: POLICY,
    });
    const at = await killed;
    const done = await replicas.phase(made.id, ['Done']);
    once(done);
    expect(done.record?.find((entry) => entry.phase === 'Done')?.at).toBeGreaterThan(at);
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

it('a rollout whose leader is killed goes on with the next one: each proxy is upgraded once, nothing fails', async () => {
  const from = await envoyBinary('1.38.3');
  // Of three replicas each has one: what the leader orders is run by others too.
  const proxies = await Promise.all(replicas.running.map((id) => replicas.proxy(replicas.nameFor(id, 'fleet'), from)));
  const loads = proxies.map(({ port }) => newConnections(port, 50));
  const names = proxies.map(({ name }) => name);
  const made = await replicas.call<RolloutView>('POST', '/rollouts', {
    to: await envoyBinary('1.40.0'),
    selector: { proxies: names },
    strategy: { maxUnavailable: 1 },
    policy: POLICY,
  });
  const rollout = () => replicas.call<RolloutView>('GET', `/rollouts/${made.id}`);
  await until('the second one is on its way', async () => {
    const { members } = await rollout();
    return members.filter((one) => one.state !== 'waiting').length >= 2 || undefined;
  });
  const { id: leader } = await replicas.leader();
  await replicas.kill(leader);
  const done = await until(
    'the rollout is done',
    async () => {
      const view = await rollout();
      return view.phase === 'Progressing' ? undefined : view;
    },
    { limitMs: 120_000, everyMs: 200 },
  );
  expect(done).toMatchObject({ phase: 'Done', summary: { total: 3, upgraded: 3 } });
  expect((done.record ?? []).map(({ seq }) => seq)).toEqual((done.record ?? []).map((_, n) => n));
  const { items } = await replicas.call<{ items: UpgradeView[] }>('GET', '/upgrades');
  for (const name of names)
    expect(items.filter(({ proxy }) => proxy === name).map(({ phase }) => phase)).toEqual(['Done']);
  for (const load of loads) expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  // A verb reaches the leader whoever is asked; what is over refuses it.
  for (const { apiPort } of replicas.all.filter(({ child }) => child.running)) {
    const at = `http://127.0.0.1:${apiPort}`;
    await expect(replicas.call('POST', `/rollouts/${made.id}/pause`, {}, at)).rejects.toThrow(
      /409 SLUICE_PHASE_REFUSED/,
    );
  }
  for (const proxy of proxies) replicas.endProxy(proxy);
  await replicas.startOne(leader);
  neverTwo();
});

/** Agents without an Envoy: their links alone. They come in at the address of all. */
function links(names: readonly string[], signal: AbortSignal) {
  return names.map((proxy) => {
    const hello = (): Hello => ({
      type: 'hello',
      v: PROTOCOL_VERSION,
      proxy,
      slot: '1',
      agentVersion: '0',
      identity: {},
      epochs: [],
      versions: [],
    });
    const options = { urls: [replicas.url], hello, onMessage: () => undefined, log: () => undefined, signal };
    return { proxy, link: createLink({ ...options, backoffMaxMs: 1_000 }) };
  });
}

it('agents are spread; those of a dead replica go to the next owners, and back when it lives again', async () => {
  const stop = new AbortController();
  const agents = links(
    Array.from({ length: 45 }, (_, n) => `lone-${n}`),
    stop.signal,
  );
  const settled = (what: string) =>
    until(
      what,
      async () => {
        const { items } = await replicas.call<{ items: ProxyView[] }>('GET', '/proxies');
        const shown = new Map(items.map((item) => [item.proxy, item]));
        const there = agents.every(({ proxy, link }) => {
          const view = shown.get(proxy);
          return link.connected && view?.connected && view.agents[0]?.replica === replicas.owner(proxy);
        });
        return there || undefined;
      },
      { limitMs: 60_000 },
    );
  await settled('each agent is at its owner');
  const [victim = ''] = replicas.running;
  const before = new Map(agents.map(({ proxy }) => [proxy, replicas.owner(proxy)]));
  expect(new Set(before.values()).size).toBe(3);
  const since = new Map(agents.map(({ proxy, link }) => [proxy, link.state.since]));
  await replicas.kill(victim);
  await settled('those of the dead one are at their next owners');
  for (const { proxy, link } of agents) {
    // The others have not even noticed.
    if (before.get(proxy) !== victim) expect(link.state.since).toBe(since.get(proxy));
  }
  await replicas.startOne(victim);
  await settled('each agent is at its first owner again');
  stop.abort();
});

it('the leader, which has the proxy, is alone cut off from the API server: another one goes on with its drain', async () => {
  const { id: leader } = await replicas.leader();
  const proxy = await replicas.proxy(replicas.nameFor(leader, 'cut'), await envoyBinary('1.38.3'));
  const load = newConnections(proxy.port, 100);
  const held = await HeldClients.open(proxy.port);
  const made = await replicas.call<UpgradeView>('POST', '/upgrades', {
    proxy: proxy.name,
    to: await envoyBinary('1.40.0'),
    policy: { http1: { silentIdleGraceMs: 20_000 } },
  });
  await replicas.phase(made.id, ['Draining']);
  replicas.cutOff(leader);
  const others = replicas.running.filter((id) => id !== leader);
  const next = replicas.owner(proxy.name, others);
  const at = `http://127.0.0.1:${replicas.one(next).apiPort}`;
  await until(
    'its agent is at the next owner',
    async () => {
      const { agents } = await replicas.call<ProxyView>('GET', `/proxies/${proxy.name}`, undefined, at);
      return agents[0]?.replica === next || undefined;
    },
    { limitMs: 60_000 },
  );
  const done = await until(
    'the upgrade is done',
    async () => {
      const view = await replicas.call<UpgradeView>('GET', `/upgrades/${made.id}`, undefined, at);
      return view.phase === 'Done' ? view : undefined;
    },
    { limitMs: 60_000 },
  );
  once(done);
  expect(done.connections?.cut).toEqual([]);
  expect((await replicas.leader()).id).not.toBe(leader);
  neverTwo();
  await replicas.heal(leader);
  await replicas.linked(proxy.name);
  await until(
    'its agent is at its first owner again',
    async () => {
      const { agents } = await replicas.call<ProxyView>('GET', `/proxies/${proxy.name}`, undefined, at);
      return agents[0]?.replica === leader || undefined;
    },
    { limitMs: 60_000 },
  );
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  held.close();
  replicas.endProxy(proxy);
});

it('the API server is away for 60 s in mid-drain: nothing is lost, every replica says so, nobody leads', async () => {
  const { id: leader } = await replicas.leader();
  const proxy = await replicas.proxy(replicas.nameFor(leader, 'away'), await envoyBinary('1.38.3'));
  const load = newConnections(proxy.port, 100);
  const held = await HeldClients.open(proxy.port);
  // One that ends while the API server is away; the silent one of `held` keeps the drain up for longer than that.
  const slow = fetch(`http://127.0.0.1:${proxy.port}/?delay=45000`);
  const made = await replicas.call<UpgradeView>('POST', '/upgrades', {
    proxy: proxy.name,
    to: await envoyBinary('1.40.0'),
    policy: { http1: { silentIdleGraceMs: 75_000 } },
  });
  await replicas.phase(made.id, ['Draining']);
  await cluster.pause();
  const away = Date.now();
  const ready = (port: number) => fetch(`http://127.0.0.1:${port}/readyz`, { signal: AbortSignal.timeout(20_000) });
  for (const { apiPort } of replicas.all) {
    const said = await until(
      'it says that it is not ready',
      async () => {
        const answer = await ready(apiPort);
        return answer.status === 503 ? ((await answer.json()) as { code: string }) : undefined;
      },
      { limitMs: 30_000 },
    );
    expect(said.code).toBe('SLUICE_KUBE_AWAY');
  }
  await until('no term of leading is left', () => replicas.terms.every((one) => one.until !== undefined) || undefined, {
    limitMs: 30_000,
  });
  // What its owner knows live it still shows, asked of any replica.
  const { items } = await replicas.call<ExplainView>('GET', `/proxies/${proxy.name}/explain`);
  expect(items).toMatchObject([{ upgradeId: made.id, phase: 'Draining' }]);
  await new Promise((resolve) => setTimeout(resolve, away + 60_000 - Date.now()));
  expect((await replicas.call<ProxyView>('GET', `/proxies/${proxy.name}`)).connected).toBe(true);
  await cluster.resume();
  const done = await replicas.phase(made.id, ['Done']);
  once(done);
  expect((await slow).status).toBe(200);
  expect(done.connections?.cut).toEqual([]);
  const { counts } = await replicas.call<EndedView>('GET', `/upgrades/${made.id}/connections`);
  expect(counts.reduce((sum, one) => sum + one.count, 0)).toBeGreaterThan(0);
  expect(counts.filter(({ how }) => how === 'cut' || how === 'crashed')).toEqual([]);
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  await replicas.leader();
  for (const { apiPort } of replicas.all) {
    await until('it is ready', async () => (await ready(apiPort)).ok || undefined, { limitMs: 30_000 });
  }
  neverTwo();
  held.close();
  replicas.endProxy(proxy);
}, 300_000);
