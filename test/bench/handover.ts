import { envoyBinaries } from '../harness/envoy-bin.ts';
import { findHaproxy } from '../harness/haproxy.ts';
import type { Bench } from './bench.ts';
import { haproxySide } from './handover-listen-fd.ts';
import { besideCheck, type Contest, checksOf, measureSides } from './handover-rounds.ts';
import { nativeSide, oursSide } from './handover-sides.ts';

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
  const { sideOf, raw } = await measureSides(contest, say);
  const bare = sideOf(BARE);
  return {
    checks: Object.keys(ours)
      .map(sideOf)
      .flatMap((one) => [...checksOf(one, contest), besideCheck(one, bare, { contest, atMost: 1 + NOISE })]),
    raw: {
      ...raw,
      method:
        `${raw.method} Our median / that of bare has ${NOISE} for the noise of the machine. The controller stands for ` +
        'one on another machine, and runs in what the others leave of the cores.',
    },
  };
};
