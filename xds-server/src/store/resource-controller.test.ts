import { afterEach, expect, it } from 'vitest';
import { resolveConfig } from '../config.ts';
import { type Controller, openController } from '../controller.ts';
import { SILENT } from '../log.ts';
import { epochStatus, FakeAgent } from '../testing/fake-agent.ts';
import { FakeKube } from '../testing/fake-kube.ts';
import { ResourceStore } from './resource-store.ts';

let controller: Controller;
let agent: FakeAgent;
afterEach(async () => {
  agent.close();
  await controller.close();
});

async function rig(kube: FakeKube): Promise<void> {
  const store = new ResourceStore({ client: kube.client, namespace: 'sluice-system', agentsMs: 0, endedMs: 0 });
  const config = resolveConfig({ apiAddress: '127.0.0.1:0', xdsAddress: '127.0.0.1:0' });
  controller = await openController(config, store, SILENT);
  agent = await FakeAgent.connect(controller.apiPort, { epochs: [epochStatus(0, 'serving')] });
  await agent.next('welcome');
}

function post(path: string, body: object): Promise<Response> {
  const headers = { 'content-type': 'application/json' };
  const url = `http://127.0.0.1:${controller.apiPort}/api/v1${path}`;
  return fetch(url, { method: 'POST', headers, body: JSON.stringify(body) });
}

/** The answer to the first call of this kind is lost. */
function losing(kube: FakeKube, verb: string, plural: string): void {
  let first = true;
  kube.trouble = (...call) => {
    if (!first || call.join() !== [verb, plural].join()) return undefined;
    first = false;
    return 'after';
  };
}

it('an upgrade that was stored although nobody answered is told so, and begins', async () => {
  const kube = new FakeKube();
  await rig(kube);
  losing(kube, 'create', 'proxyupgrades');
  const answer = await post('/upgrades', { proxy: 'edge', to: '1.40.0' });
  expect(answer.status).toBe(503);
  expect(await answer.json()).toMatchObject({
    code: 'SLUICE_KUBE_AWAY',
    message: expect.stringMatching(/upgrade \S+ may have been stored all the same/),
  });
  const { upgradeId } = await agent.next('preflight');
  expect(kube.objects.has(`proxyupgrades/${upgradeId}`)).toBe(true);
});

it('so is a member of a rollout: it is not left to lie', async () => {
  const kube = new FakeKube();
  await rig(kube);
  losing(kube, 'create', 'proxyupgrades');
  const made = await post('/rollouts', { to: '1.40.0', selector: { proxies: ['edge'] } });
  const { members } = (await made.json()) as { members: { upgradeId: string }[] };
  expect((await agent.next('preflight')).upgradeId).toBe(members[0]?.upgradeId);
});

it('a step whose answer was lost is stored once, and its order goes out', async () => {
  const kube = new FakeKube();
  await rig(kube);
  losing(kube, 'update', 'proxyupgrades');
  const { id } = (await (await post('/upgrades', { proxy: 'edge', to: '1.40.0' })).json()) as { id: string };
  expect((await agent.next('preflight')).upgradeId).toBe(id);
  const object = kube.objects.get(`proxyupgrades/${id}`) as unknown as { spec: { record: { json: string } } };
  const record = JSON.parse(object.spec.record.json) as { seq: number; event: string }[];
  expect(record.map(({ seq, event }) => `${seq} ${event}`)).toEqual(['0 created', '1 phase']);
});
