import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { countBetween, SLICE_MS, Tally } from './tally.ts';

describe('Tally', () => {
  it('counts each request in the window in which it ended, and the refused ones apart', () => {
    let now = 10_000;
    const tally = new Tally('a', () => now);
    tally.ok(tally.nextId());
    now = 20_000;
    tally.ok(tally.nextId());
    tally.fail(tally.nextId(), 'reset');
    tally.refuse(tally.nextId());
    expect(countBetween(tally, 19_000, 21_000)).toEqual({ total: 2, failed: 1, refusedBeforeSent: 1 });
    expect(countBetween(tally, 9_000, 11_000)).toEqual({ total: 1, failed: 0, refusedBeforeSent: 0 });
    expect(tally).toMatchObject({ total: 3, failed: 1 });
  });

  it('moves a wrong answer found later from right to failed, at its own time', () => {
    let now = 10_000;
    const tally = new Tally('a', () => now);
    const id = tally.nextId();
    tally.ok(id);
    now = 90_000;
    tally.demote(id, 'seen twice');
    expect(countBetween(tally, 9_000, 11_000)).toEqual({ total: 1, failed: 1, refusedBeforeSent: 0 });
  });

  it('keeps a bounded list of failures and counts all', () => {
    const tally = new Tally('a', () => 5);
    for (let i = 0; i < 1000; i++) tally.fail(tally.nextId(), 'reset');
    expect(tally.failures.length).toBe(200);
    expect(countBetween(tally).failed).toBe(1000);
  });

  it('loses no request between adjoining windows', () => {
    const times = fc.array(fc.integer({ min: 0, max: 10_000 }), { maxLength: 100 });
    fc.assert(
      fc.property(times, fc.integer({ min: 1, max: 99 }), (ends, cut) => {
        let now = 0;
        const tally = new Tally('a', () => now);
        for (const end of ends) {
          now = end;
          tally.ok(tally.nextId());
        }
        const at = cut * SLICE_MS;
        const sum = countBetween(tally, 0, at - 1).total + countBetween(tally, at, 20_000).total;
        expect(sum).toBe(ends.length);
      }),
    );
  });
});
