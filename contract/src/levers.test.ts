import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PROTOCOLS } from './connections.ts';
import {
  CHOSEN_LEVERS,
  canChoose,
  LEVER_STATES,
  LEVERS,
  leverFor,
  NEWEST_ENVOY,
  OLDEST_ENVOY,
  tellsAnybody,
  WEAKEST,
} from './levers.ts';
import { leversDoc } from './levers-doc.ts';

const STATES = LEVER_STATES;

describe('the levers table', () => {
  it('is what docs/levers.md says', () => {
    const file = join(import.meta.dirname, '..', '..', 'docs', 'levers.md');
    expect(readFileSync(file, 'utf8'), 'run: node contract/scripts/docs.ts').toBe(leversDoc());
  });

  it('claims to have measured only where it names the Envoys', () => {
    for (const { evidence, from, to } of [...LEVERS, ...CHOSEN_LEVERS]) {
      expect(evidence.on.length > 0).toBe(evidence.kind === 'measured');
      for (const version of evidence.on) {
        expect(Number(version.split('.')[1])).toBeGreaterThanOrEqual(from);
        expect(Number(version.split('.')[1])).toBeLessThanOrEqual(to);
      }
    }
  });

  it('has exactly one line for each version, protocol and state', () => {
    for (let minor = OLDEST_ENVOY; minor <= NEWEST_ENVOY; minor += 1) {
      for (const protocol of PROTOCOLS) {
        for (const state of STATES) {
          const rows = LEVERS.filter(
            (one) =>
              one.from <= minor && minor <= one.to && one.protocols.includes(protocol) && one.states.includes(state),
          );
          expect(rows, `1.${minor} ${protocol} ${state}`).toHaveLength(1);
          expect(leverFor(`1.${minor}.0`, protocol, state).effect).toBe(rows[0]?.effect);
        }
      }
    }
  });

  it.each(['1.35.9', '1.41.0', '2.0.0', 'unknown', '', '1.4'])('claims nothing for Envoy %j', (version) => {
    expect(leverFor(version, 'http2', 'idle')).toBe(WEAKEST);
    expect(tellsAnybody(version)).toBe(false);
    for (const lever of ['mark', 'cut'] as const) expect(canChoose(version, lever)).toBe(false);
  });

  it('lets single ones be chosen where the table says so', () => {
    expect(['1.36.4', '1.37.9', '1.40.1'].map((version) => canChoose(version, 'mark'))).toEqual([false, true, true]);
    expect(['1.36.4', '1.40.1'].map((version) => canChoose(version, 'cut'))).toEqual([true, true]);
    expect(['1.36.4', '1.40.1'].map(tellsAnybody)).toEqual([true, true]);
  });

  it('takes development builds by their version', () => {
    expect(leverFor('1.38.0-dev', 'http2', 'idle').lever).toBe('age-pressure');
  });

  it('never closes what may hold a request or a session', () => {
    for (const row of LEVERS.filter((one) => one.racy)) {
      for (const state of row.states) expect(['new', 'idle']).toContain(state);
    }
    for (const protocol of ['upgrade', 'tcp'] as const) {
      for (const state of STATES) expect(leverFor('1.40.0', protocol, state).lever).toBe('wait');
    }
  });
});
