import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RecordEntry, UpgradeView } from '@sluice/contract';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { SILENT } from './log.ts';
import { type StartedController, startController } from './main.ts';
import { epochStatus, FakeAgent, verdict } from './testing/fake-agent.ts';

const ID = 'slot-2-abc';
let folder: string;
let controller: StartedController;
const agents: FakeAgent[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-slots-'));
  const state = join(folder, 'state.db');
  controller = await startController({ apiAddress: '127.0.0.1:0', xdsAddress: '127.0.0.1:0', state }, { log: SILENT });
});
afterEach(async () => {
  for (const agent of agents.splice(0)) agent.close();
  await controller.close();
  rmSync(folder, { recursive: true, force: true });
});

async function connect(slot: string, epochs: Parameters<typeof epochStatus>[]): Promise<FakeAgent> {
  const list = epochs.map(([epoch, state, more]) => ({ ...epochStatus(epoch, state, more), slot }));
  const agent = await FakeAgent.connect(controller.apiPort, { slot, epochs: list });
  agents.push(agent);
  await agent.next('welcome');
  return agent;
}

async function get<T>(path: string): Promise<T> {
  return (await (await fetch(`http://127.0.0.1:${controller.apiPort}/api/v1${path}`)).json()) as T;
}

const tellServing = (agent: FakeAgent): void =>
  agent.send({
    type: 'serving',
    upgradeId: ID,
    epoch: 1,
    oldEpoch: 0,
    oldSlot: '1',
    from: '1.38.3',
    to: '1.40.0',
    at: Date.now(),
    method: 'hot-restart',
  });
const tellDraining = (agent: FakeAgent): void =>
  agent.send({ type: 'epochs', epochs: [epochStatus(0, 'draining', { upgradeId: ID })] });

const orders = {
  'the old agent is heard first': async (old: FakeAgent) => {
    tellDraining(old);
    await old.next('drain');
    tellServing(await connect('2', [[1, 'serving', { upgradeId: ID }]]));
  },
  'the new agent is heard first': async (old: FakeAgent) => {
    tellServing(await connect('2', [[1, 'serving', { upgradeId: ID }]]));
    await old.next('drain');
    tellDraining(old);
  },
};

it.each(Object.entries(orders))('a take-over between two slots is one upgrade: %s', async (_, hear) => {
  const old = await connect('1', [[0, 'serving']]);
  await hear(old);
  old.send({ type: 'verdict', upgradeId: ID, epoch: 0, verdict: verdict(false) });
  old.send({ type: 'verdict', upgradeId: ID, epoch: 0, verdict: verdict(true) });
  expect(await old.next('reset')).toMatchObject({ upgradeId: ID, epoch: 0 });
  old.send({ type: 'reset', upgradeId: ID, epoch: 0, at: Date.now(), old: 3, drained: 3, cut: [] });
  old.send({ type: 'epochs', epochs: [] });
  await expect
    .poll(() => get<UpgradeView>(`/upgrades/${ID}`))
    .toMatchObject({
      phase: 'Done',
      from: '1.38.3',
      to: '1.40.0',
      method: 'hot-restart',
      epoch: 1,
      oldEpoch: 0,
      connections: { old: 3, drained: 3, cut: [] },
    });
  const { items } = await get<{ items: UpgradeView[] }>('/upgrades?proxy=edge');
  expect(items.map(({ id }) => id)).toEqual([ID]);
});

it('what the termination grace was too short for stands in the record with its reason', async () => {
  const old = await connect('1', [[0, 'serving']]);
  await orders['the new agent is heard first'](old);
  const { held } = verdict(false);
  const cut = held.map(({ connection, reason, rule }) => ({ ...connection, reason, rule }));
  const why = 'the termination grace of 30 s ends before their drain does';
  old.send({ type: 'reset', upgradeId: ID, epoch: 0, at: Date.now(), old: 3, drained: 2, cut, why });
  await expect.poll(() => get<UpgradeView>(`/upgrades/${ID}`)).toMatchObject({ phase: 'Done', connections: { cut } });
  const { record } = await get<{ record: RecordEntry[] }>(`/upgrades/${ID}`);
  const text = record.find(({ event }) => event === 'reset')?.text;
  expect(text).toContain(why);
  expect(text).toContain('10.0.0.9:4711');
});
