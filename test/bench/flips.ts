import { runDemo } from '../demo/demo.ts';
import { parseOptions } from '../demo/options.ts';
import { type Bench, median } from './bench.ts';

const FLIPS = 6;

/** The demo over six flips among four versions: the whole mix, and nothing fails. */
export const flipsBench: Bench = async () => {
  const options = parseOptions(['--flips', String(FLIPS)]);
  if (options === 'help') throw new Error('unreachable');
  const { result, complete } = await runDemo(options, process.stdout, new AbortController().signal);
  const { upgrades } = result;
  const total = upgrades.reduce((sum, { requests }) => sum + requests.total, 0);
  const delays = upgrades.map(
    ({ safeToResetAt, lastOldConnectionEndedAt }) => safeToResetAt - lastOldConnectionEndedAt,
  );
  return {
    checks: [
      { name: 'upgrades done', value: complete ? upgrades.length : 0, atLeast: FLIPS },
      { name: 'requests during the upgrades', value: total, atLeast: 50_000 },
      { name: 'failed, whole run', value: result.failed, atMost: 0 },
      {
        name: 'connections cut',
        value: upgrades.reduce((sum, { connections }) => sum + connections.cut, 0),
        atMost: 0,
      },
      { name: 'GOAWAY at idle HTTP/2, slowest ms', value: slowestGoaway(upgrades), atMost: 2000 },
      { name: 'verdict after the last old connection, median ms', value: median(delays), atMost: 500 },
    ],
    raw: upgrades,
  };
};

function slowestGoaway(upgrades: readonly { readonly goawayIdleMs: number | null }[]): number {
  return Math.max(...upgrades.map(({ goawayIdleMs }) => goawayIdleMs ?? Number.MAX_SAFE_INTEGER));
}
