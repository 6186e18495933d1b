import type { PolicyPatch } from '@sluice/contract';
import { Follower } from '../demo/upgrade.ts';
import { envoyBinaries } from '../harness/envoy-bin.ts';
import { claimBlock } from '../harness/ports.ts';
import { Stack } from '../harness/stack.ts';
import { spawnUpstream } from '../harness/upstream/handle.ts';
import type { Bench } from './bench.ts';
import type { Kind } from './clients/crowd.ts';
import { fixedSide } from './reset-fixed.ts';
import { type MixResult, MixRun } from './reset-mix.ts';
import { pollSide } from './reset-poll.ts';

const VERSIONS = ['1.39.3', '1.40.0'] as const;
const DRAIN_LIMIT_MS = 150_000;

export interface TrafficMix {
  readonly name: string;
  readonly members: Readonly<Partial<Record<Kind, number>>>;
  readonly sessionsEndMs: number;
}

const MIXES: readonly TrafficMix[] = [
  { name: 'short HTTP/1', members: { 'http1-busy': 40, 'http1-fresh': 40 }, sessionsEndMs: 0 },
  { name: 'idle HTTP/2 pools', members: { 'http2-idle': 60 }, sessionsEndMs: 0 },
  { name: 'gRPC streams of 10 to 20 s', members: { 'grpc-stream': 40 }, sessionsEndMs: 0 },
  { name: 'WebSockets and TCP until 75 s', members: { websocket: 20, tcp: 20 }, sessionsEndMs: 75_000 },
  {
    name: 'mixed',
    members: {
      'http1-busy': 10,
      'http1-fresh': 10,
      'http1-idle': 10,
      'http2-idle': 10,
      'grpc-stream': 10,
      websocket: 10,
      tcp: 10,
    },
    sessionsEndMs: 25_000,
  },
];
/** Silent idle HTTP/1 connections are closed after this; everything else is waited for. */
const POLICY: PolicyPatch = { http1: { silentIdleGraceMs: 10_000 }, maxDrainMs: DRAIN_LIMIT_MS };

/** From the drain order to the end of the old process: ours, the fixed timer, and polling until zero. */
export const resetBench: Bench = async (say) => {
  await envoyBinaries(VERSIONS);
  say('native sides: fixed 60 s, and polling until zero connections (60 s at most), all mixes at once');
  const [fixed, polled] = await Promise.all([
    fixedSide(MIXES, VERSIONS, say),
    Promise.all(MIXES.map((mix) => pollSide(mix, VERSIONS, say))),
  ]);
  const own = await ours(say);
  const slowest = Math.max(...own.map(({ afterTrueEndMs }) => afterTrueEndMs));
  const cut = (results: readonly MixResult[]) => results.reduce((sum, one) => sum + one.cut, 0);
  return {
    checks: [
      { name: 'mixes drained by ours', value: own.filter(({ old }) => old > 0).length, atLeast: MIXES.length },
      ...own.map(({ mix, afterTrueEndMs }) => ({
        name: `reset after the true end, ms: ${mix}`,
        value: afterTrueEndMs,
        atMost: 1_000,
      })),
      { name: 'cut by ours, all mixes', value: cut(own), atMost: 0 },
      { name: 'slowest reset after the true end, ours - fixed, ms', value: slowest - latest(fixed), atMost: 0 },
      { name: 'slowest reset after the true end, ours - polling, ms', value: slowest - latest(polled), atMost: 0 },
    ],
    raw: {
      versions: VERSIONS,
      method:
        'resetMs: from the order to the end of the old process. trueEnd: when the last old connection ended by its ' +
        "client's clock; where the reset itself ended it, when the last request or session on it had ended. cut: " +
        'connections that were ended with a request or a session on them. fixed: a real hot restart by flags with ' +
        '--drain-time-s 45 --parent-shutdown-time-s 60. polling: /healthcheck/fail and drain_listeners?graceful, then the ' +
        "listeners' downstream_cx_active once a second, reset at zero or after 60 s; new connections go to the new " +
        'Envoy from the order on, as with a perfect load balancer.',
      cut: { ours: cut(own), fixed: cut(fixed), polling: cut(polled) },
      sides: { ours: own, fixed, polling: polled },
    },
  };
};

function latest(results: readonly MixResult[]): number {
  return Math.max(...results.map(({ afterTrueEndMs }) => afterTrueEndMs));
}

/** One proxy, an upgrade for each mix, to and fro between the versions. */
async function ours(say: (text: string) => void): Promise<MixResult[]> {
  const block = await claimBlock();
  const upstream = await spawnUpstream(block);
  const [from] = VERSIONS;
  const stack = await Stack.start({ block, upstream: upstream.ports, from, versions: VERSIONS, policy: POLICY });
  const watching = new AbortController();
  const results: MixResult[] = [];
  try {
    const follower = new Follower(() => {});
    void stack.api.watch((item) => follower.take(item), watching.signal).catch(() => {});
    for (const [i, mix] of MIXES.entries()) {
      const run = await MixRun.start(mix, stack.targets);
      try {
        const view = await stack.api.proxy(stack.proxy);
        const old = view.epochs.find(({ epoch }) => epoch === view.serving?.epoch);
        if (old === undefined) throw new Error('no epoch serves');
        const to = VERSIONS[(i + 1) % VERSIONS.length] ?? from;
        const { id } = await stack.api.create({ proxy: stack.proxy, to });
        const draining = await follower.when(`${to} serves`, 60_000, () => {
          const upgrade = follower.upgrades.get(id);
          if (upgrade?.phase === 'Failed') throw new Error(upgrade.reason);
          return upgrade?.drainStartedAt === undefined ? undefined : upgrade;
        });
        await run.drainBegun(old.pid, draining.drainStartedAt ?? Number.NaN);
        const result = await run.processEnded(old.pid, DRAIN_LIMIT_MS, async () => {
          const { record = [] } = await stack.api.upgrade(id);
          return record.findLast(({ event, phase }) => event === 'phase' && phase === 'Resetting')?.at ?? Number.NaN;
        });
        results.push(result);
        say(`ours, ${mix.name}: reset after ${result.resetMs} ms, ${result.afterTrueEndMs} ms after the true end`);
        await follower.when('the upgrade is done', 15_000, () =>
          follower.upgrades.get(id)?.phase === 'Done' ? true : undefined,
        );
      } finally {
        run.stop();
      }
    }
  } finally {
    watching.abort();
    await stack.stop();
    await upstream.stop();
    await block.release();
  }
  return results;
}
