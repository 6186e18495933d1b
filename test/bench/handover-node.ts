import type { Bench } from './bench.ts';
import { nodeSide } from './handover-listen-fd.ts';
import { besideCheck, type Contest, checksOf, measureSides } from './handover-rounds.ts';

const OURS = 'helper';
const COLD = 'helper, started cold';
const PLAIN = 'plain restart';

/**
 * The same for a Node server on the published helper. What it costs is mostly what each Node process costs that has just
 * begun, so it is compared with the same server without what docs/listen-fd.md says about its start.
 */
export const handoverNodeBench: Bench = async (say) => {
  const contest: Contest = {
    sides: {
      [OURS]: () => nodeSide('warm'),
      [COLD]: () => nodeSide('cold'),
      [PLAIN]: () => nodeSide('plain'),
      'no handover': () => nodeSide('none'),
    },
    once: [PLAIN],
    rounds: 9,
    mostRounds: 14,
  };
  const { sideOf, raw } = await measureSides(contest, say);
  const ours = sideOf(OURS);
  return { checks: [...checksOf(ours, contest), besideCheck(ours, sideOf(COLD), { contest, atMost: 1 })], raw };
};
