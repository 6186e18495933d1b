import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FRESH_MS } from '@sluice/contract';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { PRESET_DURATION_MS, pressureForAll, pressureForCutoff, writePressure } from './pressure.ts';

const MONTH_MS = 2_592_000_000;

/** What Envoy makes of a pressure: ScaledTrigger::updateValue, then ScaledRangeTimer with a minimum of 1 ms; float32. */
function ageToldToLeave(pressure: number): number {
  const state = Math.fround(Math.min(1, Math.max(0, (pressure - 0.1) / 0.9)));
  return 1 + (MONTH_MS - 1) * Math.fround(1 - state);
}

describe('pressureForCutoff', () => {
  it('is full for an age of nothing, and idle from the whole duration on', () => {
    expect(pressureForCutoff(0, MONTH_MS)).toBe(1);
    expect(pressureForCutoff(-5, MONTH_MS)).toBe(1);
    expect(pressureForCutoff(MONTH_MS, MONTH_MS)).toBe(0.1);
    expect(pressureForCutoff(2 * MONTH_MS, MONTH_MS)).toBe(0.1);
  });

  it('tells exactly the older ones, within a step of the float32', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: MONTH_MS }), (age) => {
        expect(Math.abs(ageToldToLeave(pressureForCutoff(age, MONTH_MS)) - age)).toBeLessThan(200);
      }),
    );
  });

  it('never rises with the age', () => {
    fc.assert(
      fc.property(fc.nat(MONTH_MS), fc.nat(MONTH_MS), (a, b) => {
        expect(pressureForCutoff(Math.max(a, b), MONTH_MS)).toBeLessThanOrEqual(
          pressureForCutoff(Math.min(a, b), MONTH_MS),
        );
      }),
    );
  });
});

describe('pressureForAll', () => {
  it('leaves fresh connections alone, also where a manager has another duration', () => {
    expect(pressureForAll()).toBe(pressureForCutoff(FRESH_MS, PRESET_DURATION_MS));
    expect(ageToldToLeave(pressureForAll(MONTH_MS))).toBeGreaterThan(FRESH_MS - 200);
    expect(ageToldToLeave(pressureForAll(MONTH_MS))).toBeLessThan(FRESH_MS + 200);
  });
});

describe('writePressure', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-pressure-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('puts a new file in the place of the old one and leaves no other', () => {
    const file = join(folder, 'pressure');
    writePressure(file, 0);
    const before = statSync(file).ino;
    writePressure(file, 0.1 + 0.2);
    expect(statSync(file).ino).not.toBe(before);
    expect(Number(readFileSync(file, 'utf8'))).toBe(0.1 + 0.2);
    expect(readdirSync(folder)).toEqual(['pressure']);
  });
});
