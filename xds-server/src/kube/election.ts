import type { KubernetesObject } from '@kubernetes/client-node';
import { type Log, SILENT } from '../log.ts';
import { pause } from './backoff.ts';
import { isReason, type KubeClient, LEASES } from './client.ts';
import { decideLease, type LeaseSpec, releasedLease, type SeenLease } from './lease.ts';

export interface ElectionOptions {
  readonly namespace: string;
  readonly name: string;
  readonly identity: string;
  /** How long others wait for a leader that is silent. */
  readonly leaseSeconds?: number;
  /** A leader that could not renew for so long leads no more. Less than `leaseSeconds`: it stops before another one begins. */
  readonly renewSeconds?: number;
  readonly retryMs?: number;
  readonly log?: Log;
}

/** One time of being leader. */
export interface Term {
  /** Grows with each new leader: goes into every status that we write, where the API server refuses smaller ones. */
  readonly fence: number;
  /** Aborted as soon as this is no longer the leader. */
  readonly signal: AbortSignal;
}

interface Lease extends KubernetesObject {
  spec?: LeaseSpec;
}

const CONFLICT_MS = 50;
const RELEASE_MS = 2_000;

const steady = (): number => performance.now();

/**
 * Takes part in the election until the signal is aborted, then gives the lease back. `lead` is called at the start of each term.
 * A write that was sent in a term may arrive after it: therefore the fence, and preconditions on what else is written.
 */
export async function takePart(
  client: KubeClient,
  options: ElectionOptions,
  lead: (term: Term) => void,
  signal: AbortSignal,
): Promise<void> {
  const { namespace, name, identity, leaseSeconds = 15, renewSeconds = 10, retryMs = 2_000, log = SILENT } = options;
  const me = { identity, leaseDurationSeconds: leaseSeconds };
  let seen: SeenLease | undefined;
  let term: { fence: number; end: AbortController; timer: NodeJS.Timeout | undefined } | undefined;

  const end = (why: string) => {
    if (term === undefined) return;
    log.warn({ fence: term.fence, why }, 'no longer the leader');
    clearTimeout(term.timer);
    term.end.abort();
    term = undefined;
  };
  const see = (lease: Lease, at: number) => {
    const resourceVersion = lease.metadata?.resourceVersion ?? '';
    if (seen?.resourceVersion !== resourceVersion) seen = { resourceVersion, spec: lease.spec ?? {}, at };
    if (term !== undefined && (lease.spec?.holderIdentity !== identity || lease.spec.leaseTransitions !== term.fence)) {
      end(`${lease.spec?.holderIdentity || 'nobody'} holds the lease`);
    }
  };
  /** Leads until `renewSeconds` after the last good write was begun: a write counts from before it was sent. */
  const hold = (fence: number, since: number) => {
    const over = since + renewSeconds * 1000 - steady();
    if (over <= 0) return;
    const started = term === undefined;
    term ??= { fence, end: new AbortController(), timer: undefined };
    clearTimeout(term.timer);
    term.timer = setTimeout(() => end(`the lease could not be renewed for ${renewSeconds} s`), over);
    if (!started) return;
    log.info({ fence, identity }, 'leader');
    lead({ fence, signal: term.end.signal });
  };
  const write = (spec: LeaseSpec, limit: AbortSignal): Promise<Lease> => {
    const lease: Lease = { apiVersion: LEASES.apiVersion, kind: LEASES.kind, metadata: { name, namespace }, spec };
    if (seen === undefined) return client.create(LEASES, lease, limit);
    lease.metadata = { name, namespace, resourceVersion: seen.resourceVersion };
    return client.replace(LEASES, lease, limit);
  };

  const look = async (limit: AbortSignal): Promise<void> => {
    try {
      see(await client.get<Lease>(LEASES, { namespace, name }, limit), steady());
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
      end('the lease was deleted');
      seen = undefined;
    }
  };

  let stale = true;
  while (!signal.aborted) {
    // A leader has time for a second try before its term ends by itself.
    const limit = AbortSignal.any([signal, AbortSignal.timeout(renewSeconds * 400)]);
    let waitMs = retryMs;
    try {
      if (stale || term === undefined) await look(limit);
      stale = false;
      const begun = steady();
      const step = decideLease(seen, me, begun, new Date());
      if (step.type === 'wait') waitMs = Math.min(retryMs, step.until - begun);
      else {
        const lease = await write(step.spec, limit);
        see(lease, begun);
        hold(lease.spec?.leaseTransitions ?? 0, begun);
      }
    } catch (error) {
      if (signal.aborted) break;
      stale = true;
      // Another one wrote, and that decides; or it was our own write, whose answer was lost.
      if (isReason(error, 'Conflict', 'AlreadyExists', 'NotFound')) waitMs = Math.min(retryMs, CONFLICT_MS);
      else log.warn({ error: (error as Error).message }, 'election: again later');
    }
    await pause(waitMs * (0.8 + 0.4 * Math.random()), signal);
  }
  const led = term !== undefined;
  end('it was told to end');
  if (led && seen !== undefined) {
    await write(releasedLease(seen.spec, new Date()), AbortSignal.timeout(RELEASE_MS)).catch((error: Error) =>
      log.warn({ error: error.message }, 'election: the lease runs out by itself'),
    );
  }
}
