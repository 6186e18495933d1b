import http2 from 'node:http2';
import type { EndedView, ExplainView } from '@sluice/contract';
import { afterEach, expect, test } from 'vitest';
import { type FleetProxy, startFleet, type TestFleet } from '../harness/fleet.ts';
import { until } from '../harness/process.ts';

let fleet: TestFleet | undefined;
const sessions: http2.ClientHttp2Session[] = [];
afterEach(async () => {
  for (const session of sessions.splice(0)) session.destroy();
  await fleet?.close();
  fleet = undefined;
});

/** Connections a second, of both proxies together. */
const PER_SECOND = 10;
const EACH = 60;
/**
 * What may be told beyond the rate: turns that gather while a process waits for its CPU (half a second's, plan.ts, at each
 * proxy), and a whole rate for as long as the one proxy has it alone: until the other one's drain begins, and then until the
 * shares are made (once a second). An end is noticed up to a fifth of a second late.
 */
const BEYOND = 2 * (PER_SECOND / 2) + PER_SECOND + PER_SECOND / 5;

async function open({ port }: FleetProxy): Promise<void> {
  for (let n = 0; n < EACH; n += 1) {
    const session = http2.connect(`http://127.0.0.1:${port}`).on('error', () => {});
    sessions.push(session);
    await new Promise((resolve, reject) => {
      session.request({ ':path': '/' }).on('error', reject).on('end', resolve).resume().end();
    });
    // Those that are born within 50 ms of each other are told together.
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test('two proxies that drain at once share one rate: what leaves both is bounded by it', async () => {
  fleet = await startFleet({ count: 2, from: '1.40.0', to: '1.39.3' });
  const { controller, proxies } = fleet;
  await Promise.all(proxies.map(open));
  const policy = { pacing: { perSecond: PER_SECOND, scope: 'fleet', adapt: false } };
  const upgrades = await Promise.all(proxies.map(({ name }) => controller.startUpgrade(name, '1.39.3', policy)));
  const rates = async () => {
    const views = await Promise.all(
      proxies.map(({ name }) => controller.call<ExplainView>('GET', `/proxies/${name}/explain`)),
    );
    const pacing = views.map(({ items }) => items[0]?.pacing);
    return pacing.every((one) => one !== undefined && one.left > 0)
      ? pacing.map((one) => one?.perSecond ?? 0)
      : undefined;
  };
  // Rounded to tenths, and a share that is off by less than a tenth is not sent anew.
  const shared = await until('both have their share', async () => {
    const sum = (await rates())?.reduce((a, b) => a + b, 0);
    return sum !== undefined && sum <= PER_SECOND * 1.1 ? sum : undefined;
  });
  expect(shared).toBeGreaterThan(0);
  await Promise.all(upgrades.map(({ id }) => controller.phase(id, ['Done'])));
  const left = (await Promise.all(upgrades.map(({ id }) => leftAt(controller, id)))).flat().sort((a, b) => a - b);
  expect(left).toHaveLength(2 * EACH);
  for (let first = 0; first < left.length; first += 1) {
    for (let last = first + 1; last < left.length; last += 1) {
      const seconds = ((left[last] as number) - (left[first] as number)) / 1_000;
      expect(last - first).toBeLessThanOrEqual(PER_SECOND * 1.1 * seconds + BEYOND);
    }
  }
});

/** When each connection of the old epoch left. */
async function leftAt(controller: TestFleet['controller'], id: string): Promise<number[]> {
  const { items } = await controller.call<EndedView>('GET', `/upgrades/${id}/connections`);
  return items.map((one) => one.at);
}
