import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { type Bench, type BenchResult, holds, showCheck } from './bench.ts';
import { fleetBench } from './fleet.ts';
import { flipsBench } from './flips.ts';
import { handoverBench } from './handover.ts';
import { handoverNodeBench } from './handover-node.ts';
import { pacingBench } from './pacing.ts';
import { resetBench } from './reset.ts';
import { soakBench } from './soak.ts';
import { verdictBench } from './verdict.ts';

const BENCHES: Readonly<Record<string, Bench>> = {
  verdict: verdictBench,
  flips: flipsBench,
  soak: soakBench,
  pacing: pacingBench,
  reset: resetBench,
  handover: handoverBench,
  'handover-node': handoverNodeBench,
  fleet: fleetBench,
};

/** 0: every check holds; 1: one does not; 2: used wrongly. */
async function main(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    options: { json: { type: 'string' } },
    allowPositionals: true,
  });
  const [name = ''] = positionals;
  const bench = BENCHES[name];
  if (bench === undefined) {
    console.error(`usage: npm run bench -- NAME [--json FILE]; NAME is one of: ${Object.keys(BENCHES).join(' ')}`);
    return 2;
  }
  const result: BenchResult = { bench: name, ...(await bench((text) => console.log(text))) };
  for (const check of result.checks) console.log(showCheck(check));
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(result, null, 2)}\n`);
  return result.checks.every(holds) ? 0 : 1;
}

// What a bench has started ends with it.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

process.exitCode = await main(process.argv.slice(2));
