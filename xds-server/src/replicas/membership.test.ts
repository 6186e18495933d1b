import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type Contact, heardSelf, isLive, type SeenReplica } from './membership.ts';

const GAP = 10_000;
const seen = (at: number, durationMs = 15_000): SeenReplica => ({
  id: 'b',
  api: 'http://b',
  xds: 'b:1',
  resourceVersion: '1',
  at,
  durationMs,
});
/** Our own renewals came back at these times. */
const heard = (...times: number[]): Contact =>
  times.reduce<Contact | undefined>((contact, at) => heardSelf(contact, at, GAP), undefined) as Contact;
const each3s = (from: number, to: number) =>
  Array.from({ length: (to - from) / 3_000 + 1 }, (_, n) => from + n * 3_000);

it('a replica that renews lives; one that is silent for its time while we are heard is over', () => {
  expect(isLive(seen(0), heard(...each3s(0, 12_000)))).toBe(true);
  expect(isLive(seen(0), heard(...each3s(0, 15_000)))).toBe(false);
  expect(isLive(seen(12_000), heard(...each3s(0, 15_000)))).toBe(true);
});

it('nobody is over while the API server is away, nor right after: the others get their whole time to renew', () => {
  const away = heard(...each3s(0, 3_000));
  expect(isLive(seen(0), away)).toBe(true);
  // A minute later our own renewal comes back first.
  const back = heardSelf(away, 63_000, GAP);
  expect(back).toEqual({ since: 63_000, last: 63_000 });
  expect(isLive(seen(0), back)).toBe(true);
  expect(isLive(seen(0), heard(0, 3_000, ...each3s(63_000, 75_000)))).toBe(true);
  expect(isLive(seen(0), heard(0, 3_000, ...each3s(63_000, 78_000)))).toBe(false);
});

it('before the first word of our own nobody is over', () => {
  expect(isLive(seen(0), undefined)).toBe(true);
});

it('is over only after its whole time of unbroken contact, whatever the history', () => {
  const steps = fc.array(fc.integer({ min: 1, max: 40_000 }), { minLength: 1, maxLength: 40 });
  fc.assert(
    fc.property(steps, fc.nat(200_000), fc.integer({ min: 1_000, max: 60_000 }), (waits, at, durationMs) => {
      let now = 0;
      let contact: Contact | undefined;
      let unbroken = 0;
      for (const wait of waits) {
        now += wait;
        unbroken = contact === undefined || wait > GAP ? 0 : unbroken + wait;
        contact = heardSelf(contact, now, GAP);
        if (isLive(seen(at, durationMs), contact)) continue;
        expect(unbroken).toBeGreaterThanOrEqual(durationMs);
        expect(now - at).toBeGreaterThanOrEqual(durationMs);
      }
    }),
  );
});
