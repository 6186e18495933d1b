/**
 * When which certificate of the webhook is made and served, as a pure function over what is stored. An API server calls the webhook
 * with the authorities of the configuration's caBundle, as it last saw it; a replica serves with what it last saw in the Secret.
 * So a new authority is known everywhere before a certificate of it is served, and the old one until long after:
 *
 *   nothing stored, or it can not be read --create--> authority A, certificate of A       caBundle: A
 *      |  two thirds of the certificate's life are over, or it is for other names: --renew--> another of A
 *      |  two thirds of A's life are over
 *   --prepare--> authority B beside it, still served: of A                                 caBundle: A B
 *      |  the caBundle has B (--published--), and has had it for `settleMs`
 *   --switch--> certificate of B served, A's key is gone                                   caBundle: B A
 *      |  for `overlapMs`
 *   --forget--> only B                                                                     caBundle: B
 *
 * No step but `create` makes an admission fail, whichever of the two sides is late: and that one is where nothing could be served.
 */
import { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import type { Identity } from './x509.ts';

export interface CertificateState {
  readonly authority: Identity;
  readonly serving: Identity;
  /** It signs from the switch on. */
  readonly next?: Identity | undefined;
  /** When the caBundle was first seen to have the next authority, milliseconds since 1970. */
  readonly publishedAt?: number | undefined;
  /** It signed before the switch. */
  readonly former?: string | undefined;
  readonly switchedAt?: number | undefined;
}

export interface CertificateTimes {
  readonly authorityDays: number;
  readonly servingDays: number;
  /** How late an API server may hear of the caBundle. */
  readonly settleMs: number;
  /** How late a replica may hear of the Secret. */
  readonly overlapMs: number;
}

export const CERTIFICATE_TIMES: CertificateTimes = {
  authorityDays: 730,
  servingDays: 90,
  settleMs: 60_000,
  overlapMs: 86_400_000,
};

export type CertificateStep =
  | { readonly type: 'create' | 'renew' | 'prepare' | 'published' | 'switch' | 'forget'; readonly why: string }
  /** Look again then, milliseconds since 1970, or when something changes. */
  | { readonly type: 'wait'; readonly until: number };

export interface CertificateFacts {
  readonly now: number;
  /** DNS names and addresses by which API servers call. */
  readonly names: readonly string[];
  /** caBundle of the configuration, PEM; undefined when it could not be read. */
  readonly published: string | undefined;
}

export function planCertificates(
  state: CertificateState | undefined,
  { now, names, published }: CertificateFacts,
  times: CertificateTimes,
): CertificateStep {
  const [authority, serving] = [parse(state?.authority.certificate), parse(state?.serving.certificate)];
  if (state === undefined || authority === undefined) return { type: 'create', why: 'there is no authority' };
  if (over(authority, now)) return { type: 'create', why: 'the authority has expired' };
  if (serving === undefined || !serving.checkIssued(authority)) {
    return { type: 'renew', why: 'what is served is not of the authority' };
  }
  const missing = names.find(
    (name) => (isIP(name) === 0 ? serving.checkHost(name) : serving.checkIP(name)) === undefined,
  );
  if (missing !== undefined) return { type: 'renew', why: `the certificate is not for ${missing}` };
  if (now >= due(serving)) return { type: 'renew', why: 'two thirds of its time are over' };
  const waits = [due(serving)];
  if (state.next !== undefined) {
    if (state.publishedAt === undefined) {
      if (published !== undefined && authoritiesOf(published).includes(state.next.certificate.trim())) {
        return { type: 'published', why: 'the caBundle has the next authority' };
      }
    } else if (now >= state.publishedAt + times.settleMs) {
      return { type: 'switch', why: 'the next authority is known' };
    } else waits.push(state.publishedAt + times.settleMs);
  } else if (now >= due(authority)) return { type: 'prepare', why: 'two thirds of the authority’s time are over' };
  else waits.push(due(authority));
  if (state.former !== undefined) {
    const end = (state.switchedAt ?? 0) + times.overlapMs;
    if (now >= end) return { type: 'forget', why: 'nobody serves a certificate of the former authority any more' };
    waits.push(end);
  }
  return { type: 'wait', until: Math.min(...waits) };
}

/** What the caBundle is to be: each authority that somebody may serve a certificate of. */
export function bundleOf({ authority, next, former }: CertificateState): string {
  const all = [authority.certificate, next?.certificate, former];
  return all.flatMap((one) => (one === undefined ? [] : [`${one.trim()}\n`])).join('');
}

/** The certificates of a bundle, as they stand there. */
export function authoritiesOf(bundle: string): string[] {
  return bundle.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
}

function parse(certificate: string | undefined): X509Certificate | undefined {
  try {
    return certificate === undefined ? undefined : new X509Certificate(certificate);
  } catch {
    return undefined;
  }
}

const over = ({ validTo }: X509Certificate, now: number): boolean => Date.parse(validTo) <= now;
const due = ({ validFrom, validTo }: X509Certificate): number => {
  const from = Date.parse(validFrom);
  return from + ((Date.parse(validTo) - from) * 2) / 3;
};
