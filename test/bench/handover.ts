import { envoyBinaries } from '../harness/envoy-bin.ts';
import { findHaproxy } from '../harness/haproxy.ts';
import type { Bench, Check } from './bench.ts';
import { haproxySide } from './handover-listen-fd.ts';
import { type Contest, failedOf, HELD_MS, type Measured, measureSides, methodOf, ratioOf } from './handover-rounds.ts';
import { nativeSide, oursSide } from './handover-sides.ts';
import { round } from './stats.ts';

/** Two runs of the same thing differ by about this much. */
const NOISE = 0.1;
const BARE = 'bare hot restart';
const PLAIN = 'plain restart';

/** Requests that fail and the latency that a handover costs, each method beside a bare hot restart and a plain restart. */
export const handoverBench: Bench = async (say) => {
  await envoyBinaries(['1.39.3', '1.40.0']);
  const haproxy = await findHaproxy();
  if (haproxy.missing !== undefined) say(`listen-fd is left out: ${haproxy.missing}`);
  const { binary } = haproxy;
  const ours = {
    'hot-restart': () => oursSide('hot-restart'),
    'reuse-port': () => oursSide('reuse-port'),
    ...(binary !== undefined && { 'listen-fd, HAProxy': () => haproxySide(binary) }),
  };
  const native = {
    [BARE]: () => nativeSide('bare'),
    [PLAIN]: () => nativeSide('plain'),
    'no handover': () => nativeSide('none'),
  };
  const contest: Contest = { sides: { ...ours, ...native }, once: [PLAIN], rounds: 13, mostRounds: 18 };
  const { sides, stallsNotSeen } = await measureSides(contest, say);
  return {
    checks: checksOf(sides, Object.keys(ours), contest),
    raw: {
      rounds: contest.rounds,
      heldMs: HELD_MS,
      stallsNotSeen,
      method:
        `${methodOf(contest)} Our median / that of bare has ${NOISE} for the noise of the machine. The controller stands for ` +
        'one on another machine, and runs in what the others leave of the cores.',
      sides,
    },
  };
};

function checksOf(all: readonly Measured[], ours: readonly string[], contest: Contest): Check[] {
  const bare = all.find(({ side }) => side === BARE);
  if (bare === undefined) throw new Error(`expected the side ${BARE}, found ${all.map(({ side }) => side).join(', ')}`);
  return all
    .filter(({ side }) => ours.includes(side))
    .flatMap((one) => [
      { name: `handovers, ${one.side}`, value: one.rounds.length, atLeast: contest.rounds },
      { name: `failed requests, ${one.side}`, value: failedOf(one), atMost: 0 },
      { name: `p99 during / steady, ${one.side}`, value: ratioOf(one, contest), atMost: 1.2 },
      // Of the medians, not the median of the rounds' own: what the machine does comes in bursts, not in whole rounds, so two
      // sides of one round have nothing in common and dividing them adds up their noise.
      {
        name: `p99 ratio, ${one.side} / ${BARE}`,
        value: round(ratioOf(one, contest) / ratioOf(bare, contest)),
        atMost: 1 + NOISE,
      },
    ]);
}
