import type { Phase } from '@sluice/contract';
import { afterEach, expect, test } from 'vitest';
import { killAtOnce, newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { HeldClients } from '../harness/held.ts';
import { type Mesh, startMesh } from '../harness/mesh.ts';

let mesh: Mesh | undefined;
afterEach(async () => {
  await mesh?.close();
  mesh = undefined;
});

// Long enough that a kill in Draining and in SafeToReset finds the upgrade there.
const POLICY = { http1: { silentIdleGraceMs: 2_000 } };
const PHASES: readonly Phase[] = ['Preflight', 'Starting', 'Draining', 'SafeToReset', 'Resetting'];

test.each(PHASES)('a controller killed in %s goes on from its store; no request fails', async (phase) => {
  mesh = await startMesh({ envoy: await envoyBinary('1.38.3') });
  const { controller, port } = mesh;
  const load = newConnections(port, 200);
  const held = await HeldClients.open(port);
  const upgrade = await controller.startUpgrade('edge', await envoyBinary('1.40.0'), POLICY);
  await atLeast(mesh, upgrade.id, phase);
  await controller.kill();
  await controller.restart();
  await controller.linked('edge');
  const done = await controller.phase(upgrade.id, ['Done']);
  expect(done.connections?.cut).toEqual([]);
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  held.close();
});

test.each(PHASES)(
  'an agent killed in %s is succeeded; no request fails, the upgrade completes or rolls back',
  async (phase) => {
    mesh = await startMesh({ envoy: await envoyBinary('1.38.3') });
    const { controller, port } = mesh;
    const load = newConnections(port, 200);
    const held = await HeldClients.open(port);
    const upgrade = await controller.startUpgrade('edge', await envoyBinary('1.40.0'), POLICY);
    await atLeast(mesh, upgrade.id, phase);
    mesh.agent.child.kill('SIGKILL');
    await mesh.agent.child.ended;
    await mesh.startAgent();
    const ended = await controller.phase(upgrade.id, ['Done', 'Failed', 'RolledBack']);
    const proxy = await controller.proxy('edge');
    expect(proxy.serving?.version).toBe(ended.phase === 'Done' ? '1.40.0' : '1.38.3');
    expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
    held.close();
  },
);

test('a new version that crashes again and again in its drain gives way to the one before; nothing is refused', async () => {
  mesh = await startMesh({ envoy: await envoyBinary('1.38.3') });
  const { controller, port } = mesh;
  const load = newConnections(port, 200);
  const held = await HeldClients.open(port); // keeps the old epoch alive, whose version is to come back
  const upgrade = await controller.startUpgrade('edge', await envoyBinary('1.40.0'), {
    http1: { silentIdleGraceMs: 600_000 },
  });
  await controller.phase(upgrade.id, ['Draining']);
  const kills: { killedAt: number; back: number }[] = [];
  for (let crash = 0; crash < 3; crash++) {
    const serving = await mesh.agent.serving();
    // What had waited in the backlog is in flight right after a relaunch: it is answered before the next crash.
    await load.answers(300);
    const killedAt = killAtOnce(serving.pid);
    await mesh.agent.line('relaunched', (l) => l.after === serving.epoch);
    kills.push({ killedAt, back: performance.now() });
  }
  await controller.phase(upgrade.id, ['RolledBack']);
  const epochs = await mesh.agent.epochs();
  expect(epochs.map((e) => [e.state, e.version])).toEqual([
    ['draining', '1.38.3'],
    ['serving', '1.38.3'],
  ]);
  const counts = await load.stop();
  expect(counts.refused, counts.failures.slice(0, 3).join('; ')).toBe(0);
  // What was in flight on a killed one is lost, nothing that came while none served.
  const between = counts.lostBegun.filter((at) => kills.some(({ killedAt, back }) => at > killedAt && at < back));
  expect(between, counts.failures.slice(0, 3).join('; ')).toEqual([]);
  held.close();
});

/** As soon as the phase is reached; a phase that is over before it is seen counts, the kill is then a little late. */
async function atLeast(m: Mesh, id: string, phase: Phase): Promise<void> {
  const all: readonly Phase[] = [...PHASES, 'Done'];
  await m.controller.phase(id, all.slice(all.indexOf(phase)));
}
