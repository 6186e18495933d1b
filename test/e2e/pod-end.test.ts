import { mkdirSync, readFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import type { RecordEntry, UpgradeView } from '@sluice/contract';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { endEpochs, KeeperProcess } from '../harness/keeper.ts';
import { type Mesh, startMesh } from '../harness/mesh.ts';
import { until } from '../harness/process.ts';

/** Two agents of one proxy as a Pod has them, with a controller: how the old container ends. */
let mesh: Mesh;
let shared: string;
const others: { keeper: KeeperProcess; dir: string }[] = [];

async function begin(version: string, change: Record<string, unknown> = {}): Promise<KeeperProcess> {
  mesh = await startMesh({ envoy: await envoyBinary(version) });
  // The mesh's own agent has no shared folder: its place is taken by one that has.
  const { agent } = mesh;
  agent.child.kill('SIGTERM');
  await agent.child.ended;
  shared = path.join(mesh.block.dir, 'shared');
  mkdirSync(shared);
  const one = await slot('1', version, change);
  await until('it listens', async () => ((await slowRequest(0)) === 'done\n' ? true : undefined));
  return one;
}

async function slot(name: string, version: string, change: Record<string, unknown> = {}): Promise<KeeperProcess> {
  const dir = path.join(shared, `slot-${name}`);
  const { controller, block } = mesh;
  const keeper = await KeeperProcess.start({
    proxy: 'edge',
    slot: name,
    dir,
    shared,
    envoy: await envoyBinary(version),
    bootstrap: path.join(block.dir, 'envoy.json'),
    baseId: block.baseId(),
    concurrency: 2,
    controllers: [controller.url],
    xds: `127.0.0.1:${controller.setup.xdsPort}`,
    ...change,
  });
  others.push({ keeper, dir });
  return keeper;
}

async function takeOver(): Promise<UpgradeView> {
  const { items } = await mesh.controller.call<{ items: UpgradeView[] }>('GET', '/upgrades');
  const found = items.find(({ id }) => id.startsWith('slot-'));
  if (!found) throw new Error(`no take-over among ${items.map(({ id }) => id).join(', ')}`);
  return mesh.controller.upgrade(found.id);
}

function slowRequest(delay: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const url = `http://127.0.0.1:${mesh.port}/?delay=${delay}`;
    http
      .get(url, { agent: false }, (response) => {
        let text = '';
        response.on('data', (part) => {
          text += part;
        });
        response.on('end', () => resolve(text));
        response.on('error', reject);
      })
      .on('error', reject);
  });
}

beforeEach(() => {
  others.length = 0;
});
afterEach(async () => {
  for (const { keeper, dir } of others) {
    keeper.child.kill('SIGKILL');
    endEpochs(dir);
  }
  await mesh.close();
});

test('an old container that is told to end waits for its request, is reset by the controller, and ends with 0', async () => {
  const one = await begin('1.38.3');
  const load = newConnections(mesh.port, 100);
  const starting = slot('2', '1.40.0');
  // Late, so that on busy cores too it is under way when the old one drains.
  await one.line('the peer takes over', ({ step }) => step === 'taking');
  const slow = slowRequest(6_000);
  const two = await starting;
  await one.line('drain order applied', ({ via }) => via === 'xds');
  const hook = one.call('POST', '/v1/prestop');
  expect(await slow).toBe('done\n');
  expect((await hook).body).toMatchObject({ end: 'held', peer: '2', cut: [] });
  one.child.kill('SIGTERM');
  expect(await one.child.ended).toMatchObject({ code: 0 });
  const serving = await two.serving();
  const done = await until('the take-over is done', async () => {
    const view = await takeOver();
    return view.phase === 'Done' ? view : undefined;
  });
  expect(done).toMatchObject({ from: '1.38.3', to: '1.40.0', method: 'hot-restart', epoch: serving.epoch });
  expect(done).toMatchObject({ order: { via: 'xds' }, connections: { cut: [] } });
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
});

test('a grace that is too short: in time, what was cut is named to the hook, the log and the controller', async () => {
  const one = await begin('1.39.3', { terminationGraceMs: 4_000 });
  const slow = slowRequest(30_000).catch((error: Error) => error.message);
  await slot('2', '1.40.0');
  await one.line('drain order applied');
  const asked = Date.now();
  const { body } = await one.call('POST', '/v1/prestop');
  expect(body).toMatchObject({ end: 'held', peer: '2', byGrace: true, why: expect.stringContaining('grace of 4 s') });
  expect(body.cut).toHaveLength(1);
  expect(Date.now() - asked).toBeLessThan(4_000);
  expect(await slow).not.toBe('done\n');
  const { why } = await one.line('ended with protected connections');
  expect(why).toBe(body.why);
  one.child.kill('SIGTERM');
  await one.child.ended;
  const done = await until('the take-over is done', async () => {
    const view = await takeOver();
    return view.phase === 'Done' ? view : undefined;
  });
  expect(done.connections?.cut).toHaveLength(1);
  const { record } = done as unknown as { record: RecordEntry[] };
  expect(record.find(({ event }) => event === 'reset')?.text).toContain(String(why));
});

test('a container that serves goes on serving for a moment after the hook, and SIGTERM drains as ever', async () => {
  const one = await begin('1.39.3', { terminationGraceMs: 12_000 });
  const load = newConnections(mesh.port, 50);
  const asked = performance.now();
  expect((await one.call('POST', '/v1/prestop')).body).toMatchObject({ end: 'serving', cut: [] });
  expect(performance.now() - asked).toBeGreaterThan(2_900);
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  const slow = slowRequest(2_000);
  await until('in flight', async () => {
    const { body } = await one.call('GET', '/v1/connections');
    return (body.items as unknown[]).length > 0 ? true : undefined;
  });
  one.child.kill('SIGTERM');
  expect(await slow).toBe('done\n');
  expect(await one.child.ended).toMatchObject({ code: 0 });
});

test('an end that is asked for while the peer takes over waits for it: nothing is refused', async () => {
  const one = await begin('1.39.3');
  const load = newConnections(mesh.port, 100);
  const starting = slot('2', '1.40.0');
  await one.line('the peer takes over', ({ step }) => step === 'taking');
  one.child.kill('SIGTERM');
  expect(await one.child.ended).toMatchObject({ code: 0 });
  const two = await starting;
  expect((await two.serving()).version).toBe('1.40.0');
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
});

test('wait names what serves, and returns at once in a slot that does not take part', async () => {
  const one = await begin('1.39.3');
  expect((await one.call('GET', '/v1/wait')).body).toMatchObject({ slot: '1', state: 'serving', role: 'first' });
  const two = await slot('2', '1.40.0');
  expect((await two.call('GET', '/v1/wait')).body).toMatchObject({ slot: '2', state: 'serving', role: 'new' });
  await one.line('old epoch reset');
  expect((await one.call('GET', '/v1/wait')).body).toMatchObject({ slot: '1', handedTo: { slot: '2' } });
  expect(readFileSync(path.join(shared, 'slot-1', 'epochs', '0', 'meta.json'), 'utf8')).toContain('slot-2-');
});
