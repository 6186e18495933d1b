import { leverFor, type PolicyPatch } from '@sluice/contract';
import { describe, expect, it } from 'vitest';
import { ENVOY_VERSIONS } from '../harness/envoy-bin.ts';
import { CELLS } from './cells.ts';
import { type CellResult, runMatrix } from './run.ts';

/** Each version once as the old epoch; the next one, or itself, takes over. SLUICE_MATRIX names one to run alone. */
const versions = ENVOY_VERSIONS.filter((version) => (process.env.SLUICE_MATRIX ?? version) === version);

/** What tells them: the pressure all at once, or a mark for each in its turn (where Envoy can; by age elsewhere). */
const POLICIES: readonly { readonly how: string; readonly policy: PolicyPatch }[] = [
  { how: 'all at once', policy: {} },
  { how: 'one by one, the idlest first', policy: { pacing: { order: 'idlest', perSecond: 40 } } },
];

describe.each(versions)('on a draining Envoy %s', (from) => {
  const to = ENVOY_VERSIONS[ENVOY_VERSIONS.indexOf(from) + 1] ?? from;

  describe.each(POLICIES)('told $how', ({ policy }) => {
    let run: Promise<Map<string, CellResult>> | undefined;

    it.each(CELLS)('$name: none fails, and it leaves as the levers table says', async ({ name, protocol, state }) => {
      run ??= runMatrix(from, to, CELLS, policy);
      const result = (await run).get(name);
      expect(result?.failures).toEqual([]);
      expect(result?.outcome).toBe(leverFor(from, protocol, state).expect);
    });
  });
});
