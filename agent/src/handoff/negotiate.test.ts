import fc from 'fast-check';
import { expect, test } from 'vitest';
import { negotiate, outcomeOf } from './negotiate.ts';
import { readSidecarsetVersions } from './sidecarset.ts';

const peer = { slot: '2', nextEpoch: 4 };

test('alone: the first epoch', () => {
  expect(negotiate({ slot: '1' }, undefined, 3)).toEqual({ role: 'first', epoch: 3 });
});

test('a peer that serves is taken over from, with a number neither has used', () => {
  expect(negotiate({ slot: '1' }, { ...peer, serving: { epoch: 3 } }, 1)).toEqual({ role: 'new', epoch: 4, from: 3 });
  expect(negotiate({ slot: '1' }, { ...peer, serving: { epoch: 3 } }, 9)).toEqual({ role: 'new', epoch: 9, from: 3 });
});

test('the larger version is the newer; the older one, restarted, takes nothing back', () => {
  const serving = { ...peer, version: 7, serving: { epoch: 3 } };
  expect(negotiate({ slot: '1', versions: { own: 8, alt: 7 } }, serving).role).toBe('new');
  expect(negotiate({ slot: '1', versions: { own: 6, alt: 7 } }, serving).role).toBe('standby');
});

test('an upgrade is under way and the peer is not heard yet: wait', () => {
  expect(negotiate({ slot: '1', versions: { own: 8, alt: 7 } }, undefined)).toEqual({ role: 'wait' });
  expect(negotiate({ slot: '1', versions: { own: 8, alt: 0 } }, undefined).role).toBe('first');
});

test('generated: two agents that know each other never both take over, and numbers are never used twice', () => {
  const version = fc.integer({ min: 1, max: 5 });
  const used = fc.integer({ min: 0, max: 50 });
  fc.assert(
    fc.property(version, version, used, used, fc.boolean(), (a, b, nextA, nextB, aServes) => {
      fc.pre(a !== b);
      const one = { slot: '1', versions: { own: a, alt: b } };
      const two = { slot: '2', versions: { own: b, alt: a } };
      const asPeer = (v: number, next: number, serves: boolean) => ({
        slot: 'x',
        version: v,
        nextEpoch: next,
        ...(serves && { serving: { epoch: Math.max(0, next - 1) } }),
      });
      const roleOne = negotiate(one, asPeer(b, nextB, !aServes), nextA);
      const roleTwo = negotiate(two, asPeer(a, nextA, aServes), nextB);
      expect([roleOne.role, roleTwo.role].filter((r) => r === 'new').length).toBeLessThanOrEqual(1);
      for (const role of [roleOne, roleTwo]) {
        if ('epoch' in role) expect(role.epoch).toBeGreaterThanOrEqual(Math.max(nextA, nextB));
      }
    }),
  );
});

test('the environment of a SidecarSet, and what is not a number in it', () => {
  expect(readSidecarsetVersions({})).toBeUndefined();
  expect(readSidecarsetVersions({ SIDECARSET_VERSION: '3', SIDECARSET_VERSION_ALT: '0' })).toEqual({ own: 3, alt: 0 });
  expect(() => readSidecarsetVersions({ SIDECARSET_VERSION: 'new' })).toThrow(/SIDECARSET_VERSION/);
});

test('a peer that is about to serve again is waited for, and its version still decides', () => {
  const peer = { slot: '1', nextEpoch: 4, busy: true };
  expect(negotiate({ slot: '2' }, peer)).toEqual({ role: 'wait' });
  expect(negotiate({ slot: '2', versions: { own: 2, alt: 1 } }, { ...peer, version: 1 })).toEqual({ role: 'wait' });
  expect(negotiate({ slot: '2', versions: { own: 1, alt: 2 } }, { ...peer, version: 2 })).toEqual({ role: 'standby' });
  expect(negotiate({ slot: '2' }, { ...peer, busy: false })).toEqual({ role: 'first', epoch: 4 });
});

test('the older one stands by for good only beside one that serves', () => {
  const standby = { role: 'standby' } as const;
  expect(outcomeOf(standby, { ...peer, serving: { epoch: 3 } }, true)).toBe('stay');
  expect(outcomeOf(standby, peer, false)).toBe('again');
  expect(outcomeOf(standby, { ...peer, busy: true }, true)).toBe('again');
  expect(outcomeOf(standby, peer, true)).toBe('start');
});

test('one that waits for a peer waits for it so long and no longer', () => {
  expect(outcomeOf({ role: 'wait' }, undefined, false)).toBe('again');
  expect(outcomeOf({ role: 'wait' }, { ...peer, busy: true }, true)).toBe('start');
  expect(outcomeOf({ role: 'first', epoch: 3 }, undefined, false)).toBe('start');
  expect(outcomeOf({ role: 'new', epoch: 4, from: 3 }, { ...peer, serving: { epoch: 3 } }, false)).toBe('take-over');
});
