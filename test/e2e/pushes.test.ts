import { renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { AdminConnection } from '@sluice/agent/witnesses/admin';
import { afterEach, expect, test } from 'vitest';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { HeldClients } from '../harness/held.ts';
import { type Mesh, meshResources, startMesh } from '../harness/mesh.ts';
import { until } from '../harness/process.ts';

let mesh: Mesh | undefined;
afterEach(async () => {
  await mesh?.close();
  mesh = undefined;
});

const PUSHES = 300;

test('300 pushes of LDS and RDS while an old epoch drains: the new one has each, the old one frees its filter chains', async () => {
  // Replaced filter chains are freed when Envoy's drain time is over; its default is 10 minutes.
  mesh = await startMesh({ envoy: await envoyBinary('1.38.3'), drainTimeS: 5 });
  const { controller, port, block } = mesh;
  const held = await HeldClients.open(port);
  const upgrade = await controller.startUpgrade('edge', await envoyBinary('1.40.0'), {
    http1: { silentIdleGraceMs: 600_000 },
  });
  await controller.phase(upgrade.id, ['Draining']);
  const admins = [0, 1].map(
    (epoch) => new AdminConnection(path.join(block.dir, 'run', 'epochs', String(epoch), 'admin.sock')),
  );
  const [old, young] = admins as [AdminConnection, AdminConnection];
  for (let revision = 1; revision <= PUSHES; revision++) {
    push(mesh, revision);
    await until(
      `revision ${revision} is served`,
      async () => ((await revisionServed(port)) === `${revision}` ? true : undefined),
      {
        everyMs: 5,
      },
    );
  }
  const stat = async (admin: AdminConnection, name: string) =>
    Number(/: (\d+)/.exec(await admin.get(`/stats?filter=${name}`))?.[1]);
  expect(await stat(young, 'listener_manager.lds.update_rejected')).toBe(0);
  expect(await stat(young, 'listener_manager.lds.update_success')).toBeGreaterThan(PUSHES);
  for (const [name, admin] of [
    ['old', old],
    ['new', young],
  ] as const) {
    await until(
      `the ${name} epoch has no draining filter chain`,
      async () => ((await stat(admin, 'listener_manager.total_filter_chains_draining')) === 0 ? true : undefined),
      { limitMs: 30_000, everyMs: 250 },
    );
  }
  for (const admin of admins) admin.close();
  held.close();
  await controller.phase(upgrade.id, ['Done']);
});

function push(m: Mesh, revision: number): void {
  const temporary = path.join(m.resources, '.next');
  writeFileSync(temporary, JSON.stringify({ resources: meshResources(m.port, m.upstreamPort, revision) }));
  renameSync(temporary, path.join(m.resources, 'all.json'));
}

async function revisionServed(port: number): Promise<string | null> {
  const response = await fetch(`http://127.0.0.1:${port}/`);
  await response.text();
  // `server` comes with the listener, `x-revision` with the route: both must be the new ones.
  const revision = response.headers.get('x-revision');
  return response.headers.get('server') === `revision-${revision}` ? revision : null;
}
