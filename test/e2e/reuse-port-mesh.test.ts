import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { listenFds } from '@sluice/agent/native/listeners';
import { afterEach, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { HeldClients } from '../harness/held.ts';
import { type Mesh, meshResources, startMesh } from '../harness/mesh.ts';
import { until } from '../harness/process.ts';

let mesh: Mesh | undefined;
afterEach(async () => {
  await mesh?.close();
  mesh = undefined;
});

const POLICY = { http1: { silentIdleGraceMs: 3_000 } };

function tcpListeners(pid: number): number {
  return listenFds(pid).filter(({ address }) => address.startsWith('tcp://')).length;
}

test.each(['1.36.4', '1.40.0'])('without hot restart the controller drains and resets %s as ever', async (version) => {
  mesh = await startMesh({ envoy: await envoyBinary(version), hotRestart: false });
  const { controller, agent, port } = mesh;
  const load = newConnections(port, 200);
  const held = await HeldClients.open(port);
  const old = await agent.serving();
  const upgrade = await controller.startUpgrade('edge', await envoyBinary('1.39.3'), POLICY);
  const draining = await controller.phase(upgrade.id, ['Draining', 'SafeToReset']);
  expect(draining).toMatchObject({ method: 'reuse-port' });
  expect(tcpListeners(old.pid)).toBe(0);
  // A change of the listener, which the old epoch hears of as well, must not make it listen again.
  const changed = JSON.stringify({ resources: meshResources(port, mesh.upstreamPort, 7) });
  writeFileSync(path.join(mesh.resources, 'all.json'), changed);
  await until('the new listener serves', async () => {
    const answer = await fetch(`http://127.0.0.1:${port}/`);
    await answer.text();
    return answer.headers.get('server') === 'revision-7' ? true : undefined;
  });
  expect(tcpListeners(old.pid)).toBe(0);
  const done = await controller.phase(upgrade.id, ['Done']);
  await held.goaway;
  expect(done.connections?.cut).toEqual([]);
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  held.close();
});
