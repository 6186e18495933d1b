/**
 * Leader election over a Lease, as a pure function. As in client-go, no clock of another machine is read: a lease is over when
 * this candidate has seen it unchanged for as long as it says that it lasts.
 *
 *   no lease --create--> leading           held by another, changed      --> wait for its time
 *   released, or over by our own clock --take (term + 1)--> leading      held by us --renew--> leading
 *
 * Every write carries the resourceVersion that was seen, so of several candidates one wins. The term (`leaseTransitions`) grows with
 * each new holder: it is the fence.
 */
export interface LeaseSpec {
  readonly holderIdentity?: string | undefined;
  readonly leaseDurationSeconds?: number | undefined;
  readonly acquireTime?: string | undefined;
  readonly renewTime?: string | undefined;
  readonly leaseTransitions?: number | undefined;
}

export interface SeenLease {
  readonly resourceVersion: string;
  readonly spec: LeaseSpec;
  /** When this version was first seen here, by our own steady clock, milliseconds. */
  readonly at: number;
}

export interface Candidate {
  /** Never used twice: a process that starts again is another candidate. */
  readonly identity: string;
  readonly leaseDurationSeconds: number;
}

export type LeaseStep =
  | { readonly type: 'create' | 'take' | 'renew'; readonly spec: LeaseSpec }
  /** Held by another; looked at again then, by our own clock. */
  | { readonly type: 'wait'; readonly holder: string; readonly until: number };

/** @param now our steady clock @param time the wall clock, written for people only */
export function decideLease(seen: SeenLease | undefined, me: Candidate, now: number, time: Date): LeaseStep {
  const stamp = microTime(time);
  const mine = { holderIdentity: me.identity, leaseDurationSeconds: me.leaseDurationSeconds, renewTime: stamp };
  if (seen === undefined) {
    return { type: 'create', spec: { ...mine, acquireTime: stamp, leaseTransitions: firstTerm(time) } };
  }
  const { spec } = seen;
  if (spec.holderIdentity === me.identity) return { type: 'renew', spec: { ...spec, ...mine } };
  const until = seen.at + (spec.leaseDurationSeconds ?? me.leaseDurationSeconds) * 1000;
  if (spec.holderIdentity && now < until) return { type: 'wait', holder: spec.holderIdentity, until };
  return { type: 'take', spec: { ...mine, acquireTime: stamp, leaseTransitions: (spec.leaseTransitions ?? 0) + 1 } };
}

/** What the holder writes when it leaves: the next one need not wait. The term stays: it still counts as used. */
export function releasedLease(spec: LeaseSpec, time: Date): LeaseSpec {
  return { ...spec, holderIdentity: '', leaseDurationSeconds: 1, renewTime: microTime(time) };
}

/**
 * Minutes since 1970: of a lease that was deleted and made again the terms still grow, unless there was more than one a minute all
 * along. The field has 32 bits.
 */
function firstTerm(time: Date): number {
  return Math.floor(time.getTime() / 60_000);
}

/** metav1.MicroTime has six digits. */
export function microTime(time: Date): string {
  return time.toISOString().replace('Z', '000Z');
}
