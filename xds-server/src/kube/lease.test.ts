import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Candidate, decideLease, type LeaseSpec, releasedLease, type SeenLease } from './lease.ts';

const TIME = new Date('2030-01-02T03:04:05.678Z');
const ME: Candidate = { identity: 'me', leaseDurationSeconds: 15 };
const seen = (spec: LeaseSpec, at = 0): SeenLease => ({ resourceVersion: '1', spec, at });

describe('decideLease', () => {
  it('makes the lease that is missing, with a term that a deleted one has not reached', () => {
    expect(decideLease(undefined, ME, 0, TIME)).toEqual({
      type: 'create',
      spec: {
        holderIdentity: 'me',
        leaseDurationSeconds: 15,
        acquireTime: '2030-01-02T03:04:05.678000Z',
        renewTime: '2030-01-02T03:04:05.678000Z',
        leaseTransitions: Math.floor(TIME.getTime() / 60_000),
      },
    });
  });

  it('renews its own, in the same term', () => {
    const step = decideLease(seen({ holderIdentity: 'me', leaseTransitions: 4, acquireTime: 'then' }), ME, 0, TIME);
    expect(step).toMatchObject({ type: 'renew', spec: { leaseTransitions: 4, acquireTime: 'then' } });
  });

  it('waits for as long as the other one said, by its own clock, whatever the times in the lease say', () => {
    const other = seen({ holderIdentity: 'other', leaseDurationSeconds: 8, renewTime: '1999-01-01T00:00:00Z' }, 100);
    expect(decideLease(other, ME, 8_099, TIME)).toEqual({ type: 'wait', holder: 'other', until: 8_100 });
    expect(decideLease(other, ME, 8_100, TIME)).toMatchObject({ type: 'take', spec: { leaseTransitions: 1 } });
  });

  it('takes a released one at once, in a new term', () => {
    const left = releasedLease({ holderIdentity: 'other', leaseDurationSeconds: 8, leaseTransitions: 4 }, TIME);
    expect(decideLease(seen(left), ME, 0, TIME)).toMatchObject({ type: 'take', spec: { leaseTransitions: 5 } });
  });
});

/** Candidates with clocks of their own that stop for a while, and a store that takes a write only on the version it follows. */
it('no two candidates lead at the same time, and a term has one leader', () => {
  const moves = fc.array(
    fc.record({
      who: fc.nat(2),
      wait: fc.nat(4_000),
      act: fc.constantFrom('look', 'look', 'write', 'write', 'write', 'leave'),
    }),
    { maxLength: 300 },
  );
  fc.assert(
    fc.property(moves, (list) => {
      let now = 0;
      let stored: { spec: LeaseSpec; version: number } | undefined;
      const candidates = [0, 1, 2].map((n) => ({
        me: { identity: `c${n}`, leaseDurationSeconds: 15 },
        seen: undefined as SeenLease | undefined,
        leadsUntil: 0,
      }));
      const leaderOf = new Map<number, string>();
      for (const { who, wait, act } of list) {
        now += wait;
        const one = candidates[who] as (typeof candidates)[number];
        const look = () => {
          const version = String(stored?.version);
          if (stored !== undefined && one.seen?.resourceVersion !== version) {
            one.seen = { resourceVersion: version, spec: stored.spec, at: now };
          }
        };
        if (act === 'look') look();
        else if (act === 'leave') {
          if (now >= one.leadsUntil || one.seen?.resourceVersion !== String(stored?.version)) continue;
          one.leadsUntil = 0;
          stored = { spec: releasedLease(one.seen.spec, TIME), version: (stored?.version ?? 0) + 1 };
        } else {
          const step = decideLease(one.seen, one.me, now, TIME);
          const current = one.seen?.resourceVersion === (stored === undefined ? undefined : String(stored.version));
          if (step.type === 'wait' || !current) continue;
          stored = { spec: step.spec, version: (stored?.version ?? 0) + 1 };
          look();
          one.leadsUntil = now + 10_000;
          const term = step.spec.leaseTransitions as number;
          expect(leaderOf.get(term) ?? one.me.identity).toBe(one.me.identity);
          leaderOf.set(term, one.me.identity);
        }
        expect(candidates.filter(({ leadsUntil }) => now < leadsUntil).length).toBeLessThan(2);
      }
    }),
    { numRuns: 300 },
  );
});
