import type { RolloutPhase, RolloutView } from '@sluice/contract';
import { afterEach, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { startFleet, type TestFleet } from '../harness/fleet.ts';
import { until } from '../harness/process.ts';

let fleet: TestFleet | undefined;
let loads: ReturnType<typeof newConnections>[] = [];
afterEach(async () => {
  await Promise.all(loads.map((load) => load.stop()));
  loads = [];
  await fleet?.close();
  fleet = undefined;
});

const POLICY = { http1: { silentIdleGraceMs: 500 } };
const PER_SECOND = 20;

const rollout = (of: TestFleet, id: string): Promise<RolloutView> => of.controller.call('GET', `/rollouts/${id}`);

async function phase(of: TestFleet, id: string, wanted: RolloutPhase): Promise<RolloutView> {
  return until(
    `rollout ${id} is ${wanted}`,
    async () => {
      const view = await rollout(of, id);
      return view.phase === wanted ? view : undefined;
    },
    { limitMs: 100_000, everyMs: 100 },
  );
}

async function versions(of: TestFleet): Promise<(string | undefined)[]> {
  return Promise.all(of.proxies.map(async ({ name }) => (await of.controller.proxy(name)).serving?.version));
}

/** Members that were on their way at once at most, by the record. */
function mostAtOnce(view: RolloutView): number {
  const busy = new Set<string>();
  let most = 0;
  for (const { event, member } of view.record ?? []) {
    if (member === undefined) continue;
    if (event === 'started' || event === 'flipping') busy.add(member);
    else if (event !== 'crashed') busy.delete(member);
    most = Math.max(most, busy.size);
  }
  return most;
}

async function noneFailed(): Promise<void> {
  for (const load of loads) {
    const counts = await load.stop();
    expect(counts).toMatchObject({ refused: 0, lost: 0 });
    expect(counts.answered).toBeGreaterThan(0);
  }
}

test('a fleet is upgraded one by one, through a controller that is killed in the middle; nothing fails', async () => {
  fleet = await startFleet({ count: 4, from: '1.36.4', to: '1.40.0' });
  const { controller } = fleet;
  loads = fleet.proxies.map(({ port }) => newConnections(port, PER_SECOND));
  const made = await controller.call<RolloutView>('POST', '/rollouts', {
    to: '1.40.0',
    selector: { proxies: ['edge-*'] },
    strategy: { maxUnavailable: 1, canary: 1, batches: ['50%'], spread: 'zone' },
    policy: POLICY,
  });
  // Another one may not have the same proxies.
  await expect(
    controller.call('POST', '/rollouts', { to: '1.39.3', selector: { proxies: ['edge-3'] } }),
  ).rejects.toThrow(/409 SLUICE_ROLLOUT_CONFLICT .*has edge-3/);
  await until('the second one is on its way', async () => {
    const { members } = await rollout(fleet as TestFleet, made.id);
    return members.filter((one) => one.state !== 'waiting').length >= 2 ? true : undefined;
  });
  await controller.kill();
  await controller.restart();
  const done = await phase(fleet, made.id, 'Done');
  expect(done.summary).toMatchObject({ total: 4, upgraded: 4 });
  expect(mostAtOnce(done)).toBe(1);
  // Canary of one zone, the next of the other.
  const order = done.record?.filter((one) => one.event === 'started').map((one) => one.member);
  expect(order).toEqual(['edge-0', 'edge-1', 'edge-2', 'edge-3']);
  expect(await versions(fleet)).toEqual(['1.40.0', '1.40.0', '1.40.0', '1.40.0']);
  await noneFailed();
});

test('a bad target in the second batch stops the rollout by itself and flips back what was changed', async () => {
  fleet = await startFleet({ count: 4, from: '1.36.4', to: '1.40.0', broken: ['edge-2'] });
  loads = fleet.proxies.map(({ port }) => newConnections(port, PER_SECOND));
  const made = await fleet.controller.call<RolloutView>('POST', '/rollouts', {
    to: '1.40.0',
    selector: { proxies: ['edge-*'], labels: {} },
    strategy: { maxUnavailable: 1, canary: 1, batches: [2] },
    analysis: { onFailure: 'rollback' },
    policy: POLICY,
  });
  const back = await phase(fleet, made.id, 'RolledBack');
  expect(back.reason).toContain('1 failed upgrades');
  expect(back.members.map((one) => one.state)).toEqual(['rolledBack', 'rolledBack', 'failed', 'waiting']);
  expect(back.members[2]?.reason).toMatch(/died|ended|exit/i);
  expect(await versions(fleet)).toEqual(['1.36.4', '1.36.4', '1.36.4', '1.36.4']);
  expect(mostAtOnce(back)).toBe(1);
  await noneFailed();
});
