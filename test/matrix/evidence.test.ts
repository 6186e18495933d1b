import { LEVERS, type LeverRow, type LeverState, type Protocol } from '@sluice/contract';
import { describe, expect, it } from 'vitest';
import { ENVOY_VERSIONS } from '../harness/envoy-bin.ts';
import { CELLS } from './cells.ts';

/** Held by a test of its own. */
const ELSEWHERE: readonly { readonly protocol: Protocol; readonly state: LeverState; readonly by: string }[] = [
  { protocol: 'http3', state: 'active', by: 'quic.test.ts' },
];
const HELD = new Set([...CELLS, ...ELSEWHERE].map(({ protocol, state }) => `${protocol} ${state}`));

const pairs = (rows: readonly LeverRow[]) =>
  rows.flatMap(({ protocols, states, evidence }) =>
    protocols.flatMap((protocol) => states.map((state) => ({ protocol, state, evidence }))),
  );

describe('the evidence of the levers table', () => {
  it.each(pairs(LEVERS))('$protocol $state: measured exactly if the matrix holds it, on all of its Envoys', (pair) => {
    const { protocol, state, evidence } = pair;
    expect(evidence.kind === 'measured').toBe(HELD.has(`${protocol} ${state}`));
    if (evidence.kind === 'measured') expect(evidence.on).toEqual(ENVOY_VERSIONS);
  });
});
