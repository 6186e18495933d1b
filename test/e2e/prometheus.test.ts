import type { RolloutView } from '@sluice/contract';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { startFleet, type TestFleet } from '../harness/fleet.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { until } from '../harness/process.ts';
import { Prometheus, prometheusBinary } from '../harness/prometheus.ts';

const binary = await prometheusBinary();
if (binary === undefined) console.error('skipped: Debian has no prometheus for us (apt-get download)');

let block: Block;
let fleet: TestFleet | undefined;
let prometheus: Prometheus | undefined;
let loads: ReturnType<typeof newConnections>[] = [];
beforeAll(async () => {
  block = await claimBlock();
});
afterEach(async () => {
  await Promise.all(loads.map((load) => load.stop()));
  loads = [];
  await fleet?.close();
  await prometheus?.stop();
  fleet = undefined;
});
afterAll(() => block.release());

const PER_SECOND = 20;
const WINDOW_MS = 6_000;

/** A fleet of which a Prometheus scrapes the Envoys, under load. */
async function scraped(count: number, failing: readonly string[] = []): Promise<TestFleet> {
  const port = await block.port();
  const url = `http://127.0.0.1:${port}`;
  const started = await startFleet({
    ...{ count, from: '1.36.4', to: '1.40.0', failing },
    config: () => ({ metrics: { prometheus: { url, everySeconds: 1 } } }),
  });
  fleet = started;
  const targets = started.proxies.map(({ name, statusPort }) => ({
    address: `127.0.0.1:${statusPort}`,
    labels: { proxy: name },
  }));
  prometheus = await Prometheus.start(binary as string, `${block.dir}/prometheus-${port}`, port, targets);
  loads = started.proxies.map((one) => newConnections(one.port, PER_SECOND));
  return started;
}

const create = (analysis: object, strategy: object = {}): Promise<RolloutView> =>
  (fleet as TestFleet).controller.call('POST', '/rollouts', {
    to: '1.40.0',
    selector: { proxies: ['edge-*'] },
    strategy,
    analysis: { windowMs: WINDOW_MS, ...analysis },
    policy: { http1: { silentIdleGraceMs: 500 } },
  });

const reached = (id: string, what: string, fits: (view: RolloutView) => boolean): Promise<RolloutView> =>
  until(
    what,
    async () => {
      const view = await (fleet as TestFleet).controller.call<RolloutView>('GET', `/rollouts/${id}`);
      return fits(view) ? view : undefined;
    },
    { limitMs: 90_000, everyMs: 100 },
  );

test.skipIf(binary === undefined)(
  'a target that starts well and answers 500 is stopped and flipped back by Prometheus alone',
  async () => {
    // The canary is good: what comes after it is not.
    const { controller, proxies } = await scraped(3, ['edge-1', 'edge-2']);
    const { id } = await create({ maxFailedRequests: 5, onFailure: 'rollback' }, { canary: 1, maxUnavailable: 1 });
    const back = await reached(id, 'rolled back', (view) => view.phase === 'RolledBack');
    expect(back.reason).toMatch(/^analysis: \d+ failed requests, at most 5 allowed$/);
    expect(back.counts).toMatchObject({ failedUpgrades: 0, crashes: 0, cutConnections: 0 });
    const events = back.record?.map((one) => `${one.event} ${one.member ?? ''}`.trim()) ?? [];
    expect(events.indexOf('stage')).toBeGreaterThan(events.indexOf('serving edge-0'));
    expect(events.indexOf('stage')).toBeLessThan(events.indexOf('started edge-1'));
    for (const { name } of proxies) expect((await controller.proxy(name)).serving?.version).toBe('1.36.4');
    for (const [n, load] of loads.entries()) {
      const counts = await load.stop();
      expect(counts).toMatchObject({ refused: 0 });
      // What failed is what the bad target answered, and nothing else.
      expect(counts.failures.filter((text) => !text.includes('500 Internal Server Error'))).toEqual([]);
      if (n === 0) expect(counts.lost).toBe(0);
    }
  },
);

test.skipIf(binary === undefined)(
  'nobody is begun while Prometheus is away; it goes on when that is back, to its end',
  async () => {
    await scraped(2);
    await prometheus?.stop();
    const { id } = await create({ maxFailedRequests: 0, maxP99Ms: 5_000 }, { canary: 1, maxUnavailable: 2 });
    const blind = await reached(id, 'blind', (view) => view.reason.includes('nothing is begun without metrics'));
    expect(blind.reason).toContain('ECONNREFUSED');
    expect(blind.summary.waiting).toBe(2);
    await prometheus?.resume();
    await reached(id, 'the canary is begun', (view) => view.summary.waiting === 1);
    await prometheus?.stop();
    await reached(id, 'blind again', (view) => view.reason.includes('nothing is begun without metrics'));
    await prometheus?.resume();
    const done = await reached(id, 'done', (view) => view.phase === 'Done');
    expect(done.summary.upgraded).toBe(2);
    expect(done.counts.failedRequests).toBe(0);
    expect(done.counts.p99Ms).toBeGreaterThan(0);
    expect(done.record?.filter((one) => one.event === 'unmeasured').length).toBeGreaterThanOrEqual(2);
    for (const load of loads) expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  },
);
