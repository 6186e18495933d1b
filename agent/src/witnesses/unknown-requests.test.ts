import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Tally, UnknownRequests, type VmTally } from './unknown-requests.ts';

const tally = (vms: Record<string, VmTally>, sinceOrder?: number): Tally => ({
  vms: new Map(Object.entries(vms)),
  ...(sinceOrder !== undefined && { sinceOrder }),
});
const vm = (inFlight: number, ended: number, saidAt: number): VmTally => ({ inFlight, ended, saidAt });

describe('UnknownRequests', () => {
  it('waits until each VM with requests has reported after the reading', () => {
    const unknown = new UnknownRequests();
    expect(unknown.bound(tally({}), 0)).toBeUndefined();
    unknown.read(tally({ a: vm(2, 0, 90), b: vm(0, 9, 10) }, 1), 3, 100);
    expect(unknown.bound(tally({ a: vm(1, 1, 100), b: vm(0, 9, 10) }, 1), 101)).toBeUndefined();
    expect(unknown.bound(tally({ a: vm(2, 0, 101), b: vm(0, 9, 10) }, 1), 102)).toBe(1);
  });

  it('counts a request that ended around the reading as unknown', () => {
    const unknown = new UnknownRequests();
    // One known and one unknown at R1; the known one ended before the reading, another began: 1 active.
    unknown.read(tally({ a: vm(1, 0, 90) }, 1), 1, 100);
    expect(unknown.bound(tally({ a: vm(1, 1, 150) }, 1), 150)).toBe(1);
  });

  it('keeps the smallest bound while the drain part is everywhere, and no bound for long without it', () => {
    const unknown = new UnknownRequests();
    unknown.read(tally({}, 1), 0, 100);
    expect(unknown.bound(tally({}, 1), 100)).toBe(0);
    unknown.read(tally({ a: vm(1, 0, 90) }, 1), 5, 200);
    expect(unknown.bound(tally({ a: vm(1, 1, 250) }, 1), 60_000)).toBe(0);
    // The order was taken back, or a VM is new.
    expect(unknown.bound(tally({ a: vm(1, 1, 250) }), 60_000)).toBeUndefined();
    unknown.read(tally({}), 4, 60_000);
    expect(unknown.bound(tally({}), 60_001)).toBe(4);
    expect(unknown.bound(tally({}), 63_000)).toBeUndefined();
  });

  it('an admin that does not answer leaves no old word in force while requests may begin unseen', () => {
    const unknown = new UnknownRequests();
    unknown.read(tally({}), 0, 100);
    expect(unknown.bound(tally({}), 101)).toBe(0);
    unknown.unheard();
    expect(unknown.bound(tally({}), 102)).toBeUndefined();
    unknown.read(tally({}, 1), 0, 200);
    expect(unknown.bound(tally({}, 1), 201)).toBe(0);
    unknown.unheard();
    expect(unknown.bound(tally({}, 1), 202)).toBe(0);
  });

  it('gives up a reading that is never confirmed', () => {
    const unknown = new UnknownRequests();
    const silent = tally({ a: vm(1, 0, 1) }, 1);
    unknown.read(silent, 1, 100);
    unknown.read(silent, 1, 200);
    expect(unknown.bound(silent, 300)).toBeUndefined();
    unknown.read(tally({ a: vm(0, 0, 1) }, 1), 0, 5_000);
    expect(unknown.bound(silent, 5_001)).toBe(0);
  });

  it('is never below the truth, whatever begins and ends between reports and readings', () => {
    // One VM: unknown requests only end; known ones begin and end; reports and readings fall anywhere.
    const event = fc.constantFrom('begin', 'end', 'end-unknown', 'report', 'report', 'ask', 'count', 'answer', 'look');
    fc.assert(
      fc.property(fc.array(event, { maxLength: 200, size: 'max' }), fc.nat(3), (events, unseen) => {
        const unknown = new UnknownRequests();
        let [truth, known, ended, now] = [unseen, 0, 0, 0];
        let said = vm(0, 0, -1);
        let asked: { before: Tally; active?: number } | undefined;
        for (const e of events) {
          now++;
          if (e === 'begin') known++;
          else if (e === 'end' && known > 0) [known, ended] = [known - 1, ended + 1];
          else if (e === 'end-unknown' && truth > 0) truth--;
          else if (e === 'report') said = vm(known, ended, now);
          else if (e === 'ask') asked = { before: tally({ a: said }, 1) };
          else if (e === 'count' && asked) asked.active ??= truth + known;
          else if (e === 'answer' && asked?.active !== undefined) {
            unknown.read(asked.before, asked.active, now);
            asked = undefined;
          } else if (e === 'look') {
            const bound = unknown.bound(tally({ a: said }, 1), now);
            if (bound !== undefined) expect(bound).toBeGreaterThanOrEqual(truth);
          }
        }
      }),
      { numRuns: 500 },
    );
  });
});
