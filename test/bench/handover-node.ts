import type { Bench } from './bench.ts';
import { nodeSide } from './handover-listen-fd.ts';
import { type Contest, failedOf, HELD_MS, measureSides, methodOf, ratioOf } from './handover-rounds.ts';
import { round } from './stats.ts';

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
  const { sides, stallsNotSeen } = await measureSides(contest, say);
  const [ours, cold] = [OURS, COLD].map((name) => sides.find(({ side }) => side === name));
  if (ours === undefined || cold === undefined) throw new Error('expected both sides, found one of them missing');
  return {
    checks: [
      { name: 'handovers', value: ours.rounds.length, atLeast: contest.rounds },
      { name: 'failed requests', value: failedOf(ours), atMost: 0 },
      {
        name: `p99 ratio, ${OURS} / ${COLD}`,
        value: round(ratioOf(ours, contest) / ratioOf(cold, contest)),
        atMost: 1,
      },
    ],
    raw: { rounds: contest.rounds, heldMs: HELD_MS, stallsNotSeen, method: methodOf(contest), sides },
  };
};
