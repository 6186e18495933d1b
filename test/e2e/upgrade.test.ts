import http2 from 'node:http2';
import type { UpgradeView } from '@sluice/contract';
import { afterEach, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { held } from '../harness/held-request.ts';
import { type Mesh, startMesh } from '../harness/mesh.ts';
import { until } from '../harness/process.ts';

let mesh: Mesh | undefined;
afterEach(async () => {
  await mesh?.close();
  mesh = undefined;
});

const POLICY = { http1: { silentIdleGraceMs: 1_000 } };

test.each([
  ['1.38.3', '1.40.0'],
  ['1.40.0', '1.38.3'],
  ['1.36.4', '1.39.3'],
  ['1.39.3', '1.36.4'],
])('one upgrade, %s to %s: an order by xDS, GOAWAY to an idle connection, verdict, reset', async (from, to) => {
  mesh = await startMesh({ envoy: await envoyBinary(from) });
  const { controller, port } = mesh;
  const load = newConnections(port, 300);
  const idle = http2.connect(`http://127.0.0.1:${port}`);
  idle.on('error', () => {});
  await ask(idle, '/');
  const goaway = new Promise<number>((resolve) => idle.once('goaway', () => resolve(Date.now())));
  const busy = await held(port);

  const upgrade = await controller.startUpgrade('edge', await envoyBinary(to), POLICY);
  await until('Envoy has the order', async () => {
    const { order } = await controller.call<UpgradeView>('GET', `/upgrades/${upgrade.id}`);
    return order?.ackedAt;
  });
  busy.letGo();
  const done = await controller.phase(upgrade.id, ['Done']);

  expect(await busy.status).toBe(200);
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  expect(done).toMatchObject({ from, to, connections: { cut: [] } });
  expect(done.order?.ackedAt).toBeDefined();
  expect(done.order?.via).toBe('xds');
  // By the order, not by the end of its process.
  expect(await goaway).toBeLessThan(done.resetAt ?? 0);
  const proxy = await controller.proxy('edge');
  expect(proxy.serving).toMatchObject({ epoch: 1, version: to });
  expect(proxy.epochs).toHaveLength(1);
  busy.close();
});

function ask(session: http2.ClientHttp2Session, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    let status = 0;
    const stream = session.request({ ':path': path });
    stream.on('response', (headers) => {
      status = Number(headers[':status']);
    });
    stream.on('end', () => resolve(status));
    stream.on('error', reject);
    stream.resume().end();
  });
}
