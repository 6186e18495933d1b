import fc from 'fast-check';
import { expect, it } from 'vitest';
import { ownerOf } from './rendezvous.ts';

const proxies = Array.from({ length: 2_000 }, (_, n) => `pod-${n}.shop`);
const ids = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 40 }), { minLength: 1, maxLength: 7 });

it('is the same whatever the order of the replicas, and one of them', () => {
  fc.assert(
    fc.property(ids, fc.string(), (replicas, proxy) => {
      const owner = ownerOf(proxy, replicas);
      expect(replicas).toContain(owner);
      expect(ownerOf(proxy, [...replicas].reverse())).toBe(owner);
    }),
  );
  expect(ownerOf('edge', [])).toBeUndefined();
});

it('a death moves only the proxies of the dead one; a new one takes only what becomes its own', () => {
  fc.assert(
    fc.property(ids, fc.nat(), fc.string(), (replicas, n, proxy) => {
      const dead = replicas[n % replicas.length] as string;
      const left = replicas.filter((id) => id !== dead);
      const before = ownerOf(proxy, replicas);
      if (before !== dead) expect(ownerOf(proxy, left)).toBe(before);
      // The other way round: `dead` joins `left`.
      const after = ownerOf(proxy, left);
      expect([after, dead]).toContain(before);
    }),
  );
});

it('spreads 2,000 proxies evenly, and those of a dead one over all that are left', () => {
  for (const count of [2, 3, 5, 7]) {
    const replicas = Array.from({ length: count }, (_, n) => `sluice-controller-${n}`);
    const counts = new Map<string, number>();
    for (const proxy of proxies) {
      const owner = ownerOf(proxy, replicas) as string;
      counts.set(owner, (counts.get(owner) ?? 0) + 1);
    }
    const fair = proxies.length / count;
    // Five standard deviations of a fair draw.
    const slack = 5 * Math.sqrt(fair * (1 - 1 / count));
    for (const id of replicas) expect(Math.abs((counts.get(id) ?? 0) - fair)).toBeLessThan(slack);
    const left = replicas.slice(1);
    const orphans = proxies.filter((proxy) => ownerOf(proxy, replicas) === replicas[0]);
    expect(new Set(orphans.map((proxy) => ownerOf(proxy, left))).size).toBe(left.length);
  }
});
