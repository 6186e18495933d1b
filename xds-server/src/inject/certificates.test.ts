import { X509Certificate } from 'node:crypto';
import fc from 'fast-check';
import { beforeAll, expect, test } from 'vitest';
import { nextCertificates, readCertificates, writeCertificates } from './certificate-secret.ts';
import {
  authoritiesOf,
  bundleOf,
  CERTIFICATE_TIMES,
  type CertificateState,
  type CertificateStep,
  planCertificates,
} from './certificates.ts';

const NAMES = ['sluice-webhook.sluice-system.svc', '127.0.0.1'];
const DAY = 86_400_000;
const NOW = Date.UTC(2030, 0, 1);
const times = CERTIFICATE_TIMES;

const plan = (state: CertificateState | undefined, now = NOW, published = state && bundleOf(state), names = NAMES) =>
  planCertificates(state, { now, names, published }, times);
const next = (step: CertificateStep, state: CertificateState | undefined, now = NOW, names = NAMES) => {
  if (step.type === 'wait') throw new Error('nothing to do');
  return nextCertificates(step, state, names, now, times);
};

let fresh: CertificateState;
beforeAll(async () => {
  fresh = await next(plan(undefined), undefined);
});

test('a first authority, and a certificate of it that is good for every name', () => {
  const [authority, serving] = [fresh.authority, fresh.serving].map((one) => new X509Certificate(one.certificate));
  expect(authority?.ca).toBe(true);
  expect(serving?.verify(authority!.publicKey)).toBe(true);
  expect([serving?.checkHost(NAMES[0]!), serving?.checkIP('127.0.0.1')]).toEqual(NAMES);
  expect(plan(fresh)).toEqual({ type: 'wait', until: expect.any(Number) });
});

test('the certificate is renewed when two thirds of its time are over, and for another name; the authority stays', async () => {
  expect(plan(fresh, NOW + 59 * DAY).type).toBe('wait');
  const step = plan(fresh, NOW + 61 * DAY);
  expect(step.type).toBe('renew');
  const renewed = await next(step, fresh, NOW + 61 * DAY);
  expect(renewed.authority).toEqual(fresh.authority);
  expect(renewed.serving).not.toEqual(fresh.serving);
  expect(plan(renewed, NOW + 61 * DAY).type).toBe('wait');
  expect(plan(fresh, NOW, bundleOf(fresh), [...NAMES, 'other.svc'])).toEqual({
    type: 'renew',
    why: 'the certificate is not for other.svc',
  });
});

test('another authority serves when the caBundle has had it for a while; the former stays in the caBundle after it', async () => {
  let now = NOW + 490 * DAY;
  let state = await next(plan(fresh, now), fresh, now);
  expect(plan(state, now)).toEqual({ type: 'prepare', why: expect.any(String) });
  const old = state.authority.certificate.trim();
  state = await next(plan(state, now), state, now);
  expect(authoritiesOf(bundleOf(state))).toHaveLength(2);
  // Nobody knows it yet.
  expect(plan(state, now, old).type).toBe('wait');
  expect(plan(state, now, undefined).type).toBe('published');
  state = await next({ type: 'published', why: '' }, state, now);
  expect(plan(state, now)).toEqual({ type: 'wait', until: now + times.settleMs });
  now += times.settleMs;
  const step = plan(state, now);
  expect(step.type).toBe('switch');
  state = await next(step, state, now);
  expect(
    new X509Certificate(state.serving.certificate).checkIssued(new X509Certificate(state.authority.certificate)),
  ).toBe(true);
  expect(authoritiesOf(bundleOf(state))).toContain(old);
  expect(plan(state, now + times.overlapMs - 1).type).toBe('wait');
  state = await next(plan(state, now + times.overlapMs), state);
  expect(authoritiesOf(bundleOf(state))).toEqual([state.authority.certificate.trim()]);
});

test('the Secret keeps all of it', async () => {
  const place = { namespace: 'sluice-system', name: 'sluice-webhook' };
  const state: CertificateState = { ...fresh, next: fresh.serving, publishedAt: NOW, former: 'x', switchedAt: NOW + 1 };
  const secret = writeCertificates(state, place);
  expect(readCertificates(secret)).toEqual(state);
  const later = writeCertificates(fresh, place, { ...secret, metadata: { ...secret.metadata, resourceVersion: '7' } });
  expect(readCertificates(later)).toEqual({ ...fresh });
  expect(later.metadata).toMatchObject({ ...place, resourceVersion: '7' });
  expect(readCertificates({ data: {} })).toBeUndefined();
  expect(plan({ ...fresh, authority: { certificate: 'no PEM', key: '' } }).type).toBe('create');
});

/**
 * API servers that hear late of the caBundle, replicas that hear late of the Secret, leaders that look when they like: as long as
 * nobody is later than the times allow, every API server trusts every replica.
 */
test('whoever is late within the bounds, what is served is trusted', async () => {
  const history = fc.array(
    fc.record({ days: fc.integer({ min: 0, max: 40 }), hours: fc.integer({ min: 0, max: 25 }) }),
    {
      minLength: 20,
      maxLength: 40,
    },
  );
  await fc.assert(
    fc.asyncProperty(history, async (waits) => {
      let now = NOW;
      let state = fresh;
      // What was written and when; a reader is as late as it may be at most, so it has the newest one that is old enough.
      const bundles = [{ at: 0, bundle: bundleOf(state) }];
      const served = [{ at: 0, serving: state.serving.certificate }];
      const trusted = () => {
        const knownBundles = bundles.filter(
          ({ at }, i) =>
            at > now - times.settleMs || (bundles[i + 1]?.at ?? Number.POSITIVE_INFINITY) > now - times.settleMs,
        );
        const knownServing = served.filter(
          ({ at }, i) =>
            at > now - times.overlapMs || (served[i + 1]?.at ?? Number.POSITIVE_INFINITY) > now - times.overlapMs,
        );
        for (const { bundle } of knownBundles) {
          const authorities = authoritiesOf(bundle).map((pem) => new X509Certificate(pem));
          for (const { serving } of knownServing) {
            const certificate = new X509Certificate(serving);
            expect(authorities.some((one) => certificate.checkIssued(one) && certificate.verify(one.publicKey))).toBe(
              true,
            );
          }
        }
      };
      for (const { days, hours } of waits) {
        now += days * DAY + hours * 3_600_000;
        for (let i = 0; i < 5; i++) {
          const step = plan(state, now, bundles.at(-1)?.bundle);
          if (step.type === 'wait') break;
          expect(step.type).not.toBe('create');
          state = await next(step, state, now);
          if (served.at(-1)?.serving !== state.serving.certificate)
            served.push({ at: now, serving: state.serving.certificate });
          if (bundles.at(-1)?.bundle !== bundleOf(state)) bundles.push({ at: now, bundle: bundleOf(state) });
          trusted();
        }
        trusted();
      }
    }),
    { numRuns: 20 },
  );
});
