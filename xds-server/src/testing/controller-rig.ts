import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NdjsonDecoder, type Phase, type UpgradeView, type WatchItem } from '@sluice/contract';
import { expect } from 'vitest';
import type { ControllerConfig } from '../config.ts';
import { SILENT } from '../log.ts';
import { type StartedController, startController } from '../main.ts';
import { epochStatus, FakeAgent } from './fake-agent.ts';

/** A whole controller with a store of its own, for one test at a time, and an agent's words on the way to a drain. */
export let folder: string;
export let controller: StartedController;
export const agents: FakeAgent[] = [];

export async function start(more: ControllerConfig = {}): Promise<void> {
  controller = await startController(
    {
      apiAddress: '127.0.0.1:0',
      xdsAddress: '127.0.0.1:0',
      state: join(folder, 'state.db'),
      ...more,
    },
    { log: SILENT },
  );
}

/** A controller on an empty store. */
export async function open(): Promise<void> {
  folder = mkdtempSync(join(tmpdir(), 'sluice-controller-'));
  await start();
}
export async function close(): Promise<void> {
  for (const agent of agents.splice(0)) agent.close();
  await controller.close();
  rmSync(folder, { recursive: true, force: true });
}

export async function connect(hello?: Parameters<typeof FakeAgent.connect>[1]): Promise<FakeAgent> {
  const agent = await FakeAgent.connect(controller.apiPort, hello);
  agents.push(agent);
  return agent;
}

export async function api<T>(method: string, path: string, body?: unknown): Promise<{ status: number; body: T }> {
  const response = await fetch(`http://127.0.0.1:${controller.apiPort}/api/v1${path}`, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
  });
  return { status: response.status, body: (await response.json()) as T };
}

/** Follows the watch until an upgrade is in that phase. */
export async function reaches(id: string, phase: Phase): Promise<UpgradeView> {
  const response = await fetch(`http://127.0.0.1:${controller.apiPort}/api/v1/watch`);
  const decoder = new NdjsonDecoder();
  for await (const chunk of response.body!) {
    for (const item of decoder.push(chunk) as unknown as WatchItem[]) {
      if (item.kind !== 'upgrade' || item.upgrade.id !== id || item.upgrade.phase !== phase) continue;
      // Leaving the loop cancels the body, which closes the connection.
      return item.upgrade;
    }
  }
  throw new Error('the watch ended');
}

export const serving = [epochStatus(0, 'serving')];
export const during = (upgradeId: string) => [
  epochStatus(0, 'draining', { upgradeId }),
  epochStatus(1, 'serving', { upgradeId }),
];
export const served = (upgradeId: string) =>
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
export const passed = (upgradeId: string) =>
  ({
    type: 'preflight',
    upgradeId,
    ok: true,
    checks: [{ name: 'binary', ok: true, found: 'runs' }],
    from: '1.38.3',
    to: '1.40.0',
  }) as const;
export const ended = (upgradeId: string) =>
  ({ type: 'reset', upgradeId, epoch: 0, at: Date.now(), old: 3, drained: 3, cut: [] }) as const;

export async function begin(): Promise<{ agent: FakeAgent; id: string }> {
  const agent = await connect({ epochs: serving });
  await agent.next('welcome');
  const { status, body } = await api<UpgradeView>('POST', '/upgrades', { proxy: 'edge', to: '1.40.0' });
  expect(status).toBe(201);
  return { agent, id: body.id };
}

export async function toDraining(): Promise<{ agent: FakeAgent; id: string }> {
  const { agent, id } = await begin();
  await agent.next('preflight');
  agent.send(passed(id));
  expect(await agent.next('start')).toMatchObject({ upgradeId: id, target: { to: '1.40.0' } });
  agent.send({ type: 'epochs', epochs: during(id) });
  agent.send(served(id));
  expect(await agent.next('drain')).toMatchObject({
    order: { epoch: 0, version: expect.any(Number), action: 'drain' },
  });
  return { agent, id };
}
