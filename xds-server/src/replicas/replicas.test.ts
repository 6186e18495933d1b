/** Several controllers of one process over one store, and agents on real links. */
import { Client, credentials } from '@grpc/grpc-js';
import {
  API_PREFIX,
  DRAIN_RESOURCE,
  NODE_METADATA,
  type Phase,
  type ProxyView,
  SluiceError,
  type UpgradeView,
} from '@sluice/contract';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { resolveConfig } from '../config.ts';
import { type Controller, openController } from '../controller.ts';
import { SILENT } from '../log.ts';
import { decodeMessage, encodeMessage } from '../resources/encode.ts';
import { TYPE_URL } from '../resources/types.ts';
import { MemoryStore } from '../store/memory.ts';
import { epochStatus, FakeAgent, verdict } from '../testing/fake-agent.ts';
import { MemoryReplicas } from './memory.ts';
import { ownerOf } from './rendezvous.ts';

/** Can be away, as an API server is. */
class TestStore extends MemoryStore {
  away = false;
  /** What is read of upgrades, one by one, fails. */
  unread = false;
  /** Lists of upgrades wait for it. */
  listed: Promise<void> = Promise.resolve();
  override async upgrade(id: string) {
    if (this.unread) throw new SluiceError('KUBE_AWAY', 'the API server is away');
    return super.upgrade(id);
  }
  override async upgrades(...args: Parameters<MemoryStore['upgrades']>) {
    await this.listed;
    return super.upgrades(...args);
  }
  override async prune(...args: Parameters<MemoryStore['prune']>) {
    if (this.unread) throw new SluiceError('KUBE_AWAY', 'the API server is away');
    return super.prune(...args);
  }
  override async updateUpgrade(...args: Parameters<MemoryStore['updateUpgrade']>) {
    if (this.away) throw new SluiceError('KUBE_AWAY', 'the API server is away');
    return super.updateUpgrade(...args);
  }
}

const IDS = ['a', 'b', 'c'];
let store: TestStore;
let replicas: MemoryReplicas;
const controllers = new Map<string, Controller>();
const agents: FakeAgent[] = [];
const clients: Client[] = [];

async function open(id: string, among = replicas): Promise<Controller> {
  const config = resolveConfig({ apiAddress: '127.0.0.1:0', xdsAddress: '127.0.0.1:0' });
  const controller = await openController(config, store, SILENT, { membership: among.membership(id) });
  controllers.set(id, controller);
  return controller;
}

beforeEach(() => {
  store = new TestStore();
  replicas = new MemoryReplicas();
});
afterEach(async () => {
  for (const agent of agents.splice(0)) agent.close();
  for (const client of clients.splice(0)) client.close();
  for (const controller of controllers.values()) await controller.close();
  controllers.clear();
});

const at = (id: string): Controller => controllers.get(id) as Controller;
const ownerIn = (ids: readonly string[], proxy: string) => ownerOf(proxy, ids) as string;
/** A proxy of that replica. */
function proxyOf(owner: string, ids = IDS): string {
  for (let n = 0; ; n++) if (ownerIn(ids, `edge-${n}`) === owner) return `edge-${n}`;
}

/** Goes where it is sent, as an agent does. */
async function join(proxy: string, port: number, epochs = [epochStatus(0, 'serving')]): Promise<FakeAgent> {
  for (let url = port; ; ) {
    const agent = await FakeAgent.connect(url, { proxy, epochs });
    agents.push(agent);
    const first = await agent.next('welcome', 'moved');
    if (first.type === 'welcome') return agent;
    url = Number(new URL(first.url).port);
  }
}

async function api<T>(id: string, method: string, path: string, body?: unknown): Promise<{ status: number; body: T }> {
  const response = await fetch(`http://127.0.0.1:${at(id).apiPort}${API_PREFIX}${path}`, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
  });
  return { status: response.status, body: (await response.json()) as T };
}

/** An Envoy's stream. */
function xdsStream(port: number) {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  clients.push(client);
  const prefix = 'envoy.service.discovery.v3.Discovery';
  const call = client.makeBidiStreamRequest(
    '/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources',
    (message: object) => encodeMessage(`${prefix}Request`, message),
    (bytes) => decodeMessage(`${prefix}Response`, bytes),
  );
  call.on('error', () => {});
  return {
    send: (message: object) => void call.write(message),
    next: () => new Promise<Record<string, unknown>>((resolve) => call.once('data', resolve)),
  };
}

/** Until the stored upgrade is in that phase. */
function reaches(id: string, phase: Phase): Promise<void> {
  const stop = new AbortController();
  return new Promise<void>((resolve) => {
    const look = async () => {
      if ((await store.upgrade(id))?.state.phase === phase) resolve();
    };
    store.watch(() => void look(), stop.signal);
    void look();
  }).finally(() => stop.abort());
}

/** Each line of the record once, each phase entered once, in the order of its numbers. */
async function cleanRecord(id: string, phases: readonly Phase[]): Promise<void> {
  const record = await store.record(id);
  expect(record.map(({ seq }) => seq)).toEqual(record.map((_, n) => n));
  expect(record.filter(({ event }) => event === 'created' || event === 'phase').map(({ phase }) => phase)).toEqual(
    phases,
  );
}
const ALL: readonly Phase[] = ['Idle', 'Preflight', 'Starting', 'Draining', 'SafeToReset', 'Resetting', 'Done'];

const passed = (upgradeId: string) =>
  ({ type: 'preflight', upgradeId, ok: true, checks: [], from: '1.38.3', to: '1.40.0' }) as const;
const served = (upgradeId: string) =>
  ({
    type: 'serving',
    upgradeId,
    epoch: 1,
    oldEpoch: 0,
    from: '1.38.3',
    to: '1.40.0',
    at: Date.now(),
    method: 'hot-restart',
  }) as const;
const during = (upgradeId: string) => [
  epochStatus(0, 'draining', { upgradeId }),
  epochStatus(1, 'serving', { upgradeId }),
];
const ended = (upgradeId: string) =>
  ({ type: 'reset', upgradeId, epoch: 0, at: Date.now(), old: 3, drained: 3, cut: [] }) as const;

async function toDraining(proxy: string, via: string): Promise<{ agent: FakeAgent; id: string }> {
  const agent = await join(proxy, at(via).apiPort);
  const { status, body } = await api<UpgradeView>(via, 'POST', '/upgrades', { proxy, to: '1.40.0' });
  expect(status, JSON.stringify(body)).toBe(201);
  await agent.next('preflight');
  agent.send(passed(body.id));
  await agent.next('start');
  agent.send({ type: 'epochs', epochs: during(body.id) });
  agent.send(served(body.id));
  await agent.next('drain');
  return { agent, id: body.id };
}

it('agents are spread over the replicas, and every replica shows all of them as connected', async () => {
  for (const id of IDS) await open(id);
  const names = Array.from({ length: 30 }, (_, n) => `edge-${n}`);
  for (const name of names) await join(name, at('a').apiPort);
  const rows = await store.agents();
  for (const { proxy, replica } of rows) expect(replica).toBe(ownerIn(IDS, proxy));
  expect(new Set(rows.map(({ replica }) => replica))).toEqual(new Set(IDS));
  for (const id of IDS) {
    const { body } = await api<{ items: ProxyView[] }>(id, 'GET', '/proxies');
    expect(body.items.filter(({ connected }) => connected).map(({ proxy }) => proxy)).toEqual(names.sort());
  }
});

it('calls that reach another replica are answered by the owner, lists by each one', async () => {
  for (const id of IDS) await open(id);
  const proxy = proxyOf('b');
  const { agent, id } = await toDraining(proxy, 'a');
  agent.send({ type: 'verdict', upgradeId: id, epoch: 0, verdict: verdict(false) });
  for (const via of IDS) {
    expect((await api<UpgradeView>(via, 'GET', `/upgrades/${id}`)).body).toMatchObject({ phase: 'Draining', proxy });
    const listed = await api<{ items: UpgradeView[] }>(via, 'GET', '/upgrades');
    expect(listed.body.items).toMatchObject([{ id, phase: 'Draining' }]);
    expect((await api(via, 'GET', `/proxies/${proxy}/explain`)).body).toMatchObject({
      items: [{ wouldCut: [{ connection: { peer: '10.0.0.9:4711' } }] }],
    });
    expect(await api(via, 'POST', `/upgrades/${id}/abort`, {})).toMatchObject({
      status: 409,
      body: { code: 'SLUICE_PHASE_REFUSED' },
    });
  }
  expect((await api('c', 'POST', `/upgrades/${id}/reset`, {})).body).toMatchObject({ code: 'SLUICE_RESET_PROTECTED' });
  await api('c', 'POST', `/upgrades/${id}/reset`, { override: { by: 'jo', reason: 'now' } });
  expect(await agent.next('reset')).toMatchObject({ override: { by: 'jo' } });
});

it('the upgrades of a replica that dies go on with the next owner, each decision once', async () => {
  for (const id of IDS) await open(id);
  const proxy = proxyOf('b');
  const { agent, id } = await toDraining(proxy, 'b');
  replicas.dies('b');
  // To be alive and taken for dead is the worst case: it still has the link.
  const { url } = await agent.next('moved');
  const left = IDS.filter((one) => one !== 'b');
  expect(Number(new URL(url).port)).toBe(at(ownerIn(left, proxy)).apiPort);
  const again = await join(proxy, Number(new URL(url).port), during(id));
  expect(await again.next('drain')).toMatchObject({ order: { epoch: 0, upgradeId: id } });
  again.send({ type: 'verdict', upgradeId: id, epoch: 0, verdict: verdict(true) });
  await again.next('reset');
  again.send(ended(id));
  await reaches(id, 'Done');
  await cleanRecord(id, ALL);
});

it('a replica that joins takes its proxies over from the others', async () => {
  await open('a');
  const proxy = proxyOf('b');
  const { agent, id } = await toDraining(proxy, 'a');
  await open('b');
  await open('c');
  const { url } = await agent.next('moved');
  const again = await join(proxy, Number(new URL(url).port), during(id));
  again.send({ type: 'verdict', upgradeId: id, epoch: 0, verdict: verdict(true) });
  await again.next('reset');
  again.send(ended(id));
  await reaches(id, 'Done');
  await cleanRecord(id, ALL);
  expect((await api<UpgradeView>('a', 'GET', `/upgrades/${id}`)).body.phase).toBe('Done');
});

it('two that both take a proxy for theirs decide nothing twice: the slower one loses by the version', async () => {
  await open('a');
  // Another view of who lives: this one is alone in it.
  await open('b', new MemoryReplicas());
  const proxy = proxyOf('a');
  const { agent, id } = await toDraining(proxy, 'a');
  // B has seen it by the store and runs it too; the agent says everything to both.
  const shadow = await FakeAgent.connect(at('b').apiPort, { proxy, epochs: during(id) });
  agents.push(shadow);
  await shadow.next('drain');
  for (const one of [agent, shadow]) one.send({ type: 'verdict', upgradeId: id, epoch: 0, verdict: verdict(true) });
  await Promise.all([agent.next('reset'), shadow.next('reset')]);
  shadow.send(ended(id));
  await reaches(id, 'Done');
  await cleanRecord(id, ALL);
});

it('what an agent said while the store was away is not lost', async () => {
  await open('a');
  const { agent, id } = await toDraining('edge', 'a');
  store.away = true;
  for (let n = 0; n < 50; n++) agent.send({ type: 'verdict', upgradeId: id, epoch: 0, verdict: verdict(n === 49) });
  agent.send({ ...ended(id), drained: 2, old: 3, cut: [] });
  // Heard when this is answered: a link is read in order.
  const asked = api(`a`, 'GET', '/proxies/edge/connections');
  const { requestId } = await agent.next('connections');
  agent.send({ type: 'connections', requestId, connections: [], truncated: false });
  await asked;
  expect((await store.upgrade(id))?.state.phase).toBe('Draining');
  store.away = false;
  await reaches(id, 'Done');
  expect((await store.upgrade(id))?.state.connections).toMatchObject({ old: 3, drained: 2 });
});

it('a drain that an agent began while the store was away is taken over when it is back', async () => {
  await open('a');
  const agent = await join('edge', at('a').apiPort);
  store.unread = true;
  agent.send({ type: 'epochs', epochs: during('by-the-agent') });
  const asked = api(`a`, 'GET', '/proxies/edge/connections');
  const { requestId } = await agent.next('connections');
  agent.send({ type: 'connections', requestId, connections: [], truncated: false });
  await asked;
  store.unread = false;
  expect(await agent.next('drain')).toMatchObject({ order: { epoch: 0, upgradeId: 'by-the-agent' } });
});

it('an upgrade begins also where the old ones could not be removed', async () => {
  await open('a');
  const agent = await join('edge', at('a').apiPort);
  store.unread = true;
  const made = api<UpgradeView>('a', 'POST', '/upgrades', { proxy: 'edge', to: '1.40.0' });
  await agent.next('preflight');
  expect((await made).status).toBe(201);
});

describe('a replica that does not know yet what is under way', () => {
  /** B has died, and A can not read the store yet. */
  async function takingOver() {
    for (const id of ['a', 'b']) await open(id);
    const proxy = proxyOf('b', ['a', 'b']);
    const reading = Promise.withResolvers<void>();
    return {
      proxy,
      dies: () => {
        store.listed = reading.promise;
        replicas.dies('b');
      },
      reads: () => reading.resolve(),
    };
  }

  it('leaves the slots of the drain as they are, and then gives the order', async () => {
    const { proxy, dies, reads } = await takingOver();
    const { id } = await toDraining(proxy, 'b');
    dies();
    const envoy = xdsStream(at('a').xdsPort);
    const node = { id: proxy, metadata: { fields: { [NODE_METADATA.epoch]: { stringValue: '0' } } } };
    envoy.send({ node, type_url: TYPE_URL.ecds, resource_names: [DRAIN_RESOURCE] });
    envoy.send({ type_url: TYPE_URL.cds });
    expect((await envoy.next()).type_url).toBe(TYPE_URL.cds);
    reads();
    const { type_url, resources } = await envoy.next();
    expect(type_url).toBe(TYPE_URL.ecds);
    const [{ value }] = resources as [{ value: Uint8Array }];
    expect(Buffer.from(value).toString()).toContain(id);
  });

  it('hears what an agent tells again behind its hello', async () => {
    const { proxy, dies, reads } = await takingOver();
    const agent = await join(proxy, at('b').apiPort);
    const { body } = await api<UpgradeView>('b', 'POST', '/upgrades', { proxy, to: '1.40.0' });
    await agent.next('preflight');
    agent.send(passed(body.id));
    await agent.next('start');
    dies();
    const again = await join(proxy, at('a').apiPort);
    const { id: upgradeId } = body;
    again.send({
      ...{ type: 'failed', upgradeId, code: 'SLUICE_EPOCH_DIED', message: 'it died' },
      ...{ servingEpoch: 0, rolledBack: false },
    });
    const asked = api(`a`, 'GET', `/proxies/${proxy}/connections`);
    const { requestId } = await again.next('connections');
    again.send({ type: 'connections', requestId, connections: [], truncated: false });
    await asked;
    reads();
    await reaches(upgradeId, 'Failed');
  });
});

it('an upgrade that another replica stored for a proxy of this one is taken up here', async () => {
  for (const id of IDS) await open(id);
  const proxy = proxyOf('c');
  const agent = await join(proxy, at('c').apiPort);
  const now = Date.now();
  const { DEFAULT_POLICY: policy } = await import('@sluice/contract');
  await store.insertUpgrade(
    {
      id: 'made-elsewhere',
      proxy,
      target: { to: '1.40.0' },
      policy,
      createdAt: now,
      phase: 'Idle',
      phaseSince: now,
      reason: '',
      attempts: 0,
    },
    [],
  );
  expect(await agent.next('preflight')).toMatchObject({ upgradeId: 'made-elsewhere' });
});

it('a replica that ends sends its agents on before it is gone', async () => {
  for (const id of IDS) await open(id);
  const proxy = proxyOf('a');
  const agent = await join(proxy, at('b').apiPort);
  const closed = at('a').close();
  const { url } = await agent.next('moved');
  await closed;
  const left = IDS.filter((one) => one !== 'a');
  expect(Number(new URL(url).port)).toBe(at(ownerIn(left, proxy)).apiPort);
  await join(proxy, Number(new URL(url).port));
});
