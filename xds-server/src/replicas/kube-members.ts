import type { KubernetesObject } from '@kubernetes/client-node';
import { toSluiceError } from '@sluice/contract';
import { Backoff, pause } from '../kube/backoff.ts';
import { isReason, type KubeClient, LEASES, pathOf } from '../kube/client.ts';
import { Informer } from '../kube/informer.ts';
import { type LeaseSpec, microTime } from '../kube/lease.ts';
import { type Log, SILENT } from '../log.ts';
import { type Contact, heardSelf, isLive, type Membership, type Replica, type SeenReplica } from './membership.ts';

export interface KubeMembersOptions {
  /** The controllers' own namespace. */
  readonly namespace: string;
  /** Of this replica: the name of its Pod. A DNS name of at most 230 characters. */
  readonly id: string;
  /** How long the others wait for a replica that is silent. */
  readonly leaseSeconds?: number;
  readonly renewMs?: number;
  readonly log?: Log;
}

interface Lease extends KubernetesObject {
  spec?: LeaseSpec;
}

/** On the Leases of replicas; that of the leader has another name and not this label. */
export const REPLICA_LABEL = 'sluice.dev/replica';
const API_ANNOTATION = 'sluice.dev/api';
const XDS_ANNOTATION = 'sluice.dev/xds';
/** Term of the leader, on its own Lease: where calls that are for it are passed on to. */
const TERM_ANNOTATION = 'sluice.dev/term';
export const leaseName = (id: string): string => `sluice-replica-${id}`;
const ASK_MS = 3_000;
/** One that nobody renewed for so long is nobody's any more, and is removed. */
const FORGET_MS = 60 * 60_000;

const steady = (): number => performance.now();

/**
 * The replicas as Leases, one each, which it renews and whose annotations tell its addresses. Everybody watches all of them. The
 * rules are in membership.ts.
 */
export class KubeMembers implements Membership {
  readonly self: string;
  readonly #client: KubeClient;
  readonly #options: Required<KubeMembersOptions>;
  readonly #seen = new Map<string, SeenReplica>();
  readonly #listeners = new Set<() => void>();
  readonly #end = new AbortController();
  #contact: Contact | undefined;
  #heardAt = Date.now();
  #joined = Promise.withResolvers<void>();
  #members: readonly Replica[] = [];
  #running: Promise<void> = Promise.resolve();
  readonly #terms = new Map<string, number>();
  #fence: number | undefined;
  #renewNow = new AbortController();
  /** The others are heard by the API server, and this one is not. */
  #cutOff = false;
  #othersReady = 0;

  constructor(client: KubeClient, options: KubeMembersOptions) {
    this.#client = client;
    const { leaseSeconds = 15 } = options;
    // Four tries, as a Lease of a node has: one lost write is no death.
    this.#options = { leaseSeconds, renewMs: leaseSeconds * 200, log: SILENT, ...options };
    this.self = options.id;
  }

  members(): readonly Replica[] {
    return this.#members;
  }

  leader(): Replica | undefined {
    const term = ({ id }: Replica) => this.#terms.get(id) ?? 0;
    const [first] = this.#members.filter((one) => term(one) > 0).sort((a, b) => term(b) - term(a));
    return first;
  }

  leads(fence: number | undefined): void {
    this.#fence = fence;
    this.#renewNow.abort();
  }

  onChange(listener: () => void, signal: AbortSignal): void {
    this.#listeners.add(listener);
    signal.addEventListener('abort', () => this.#listeners.delete(listener), { once: true });
  }

  doubtfulSince(): number | undefined {
    return Date.now() - this.#heardAt > this.#gapMs ? this.#heardAt : undefined;
  }

  async join(self: Replica, signal: AbortSignal): Promise<void> {
    const ended = AbortSignal.any([signal, this.#end.signal]);
    const { namespace, log } = this.#options;
    const informer = new Informer<Lease>(
      this.#client,
      LEASES,
      { changed: (lease) => this.#changed(lease), gone: (lease) => this.#gone(lease) },
      { namespace, labels: REPLICA_LABEL, log, backoff: new Backoff(200, 2_000) },
    );
    // Ours is announced when the others are known: from its first renewal on it is told apart who lives.
    this.#running = Promise.all([informer.run(ended), informer.synced.then(() => this.#renew(self, ended))]).then(
      () => undefined,
    );
    ended.addEventListener('abort', () => this.#joined.resolve(), { once: true });
    await this.#joined.promise;
  }

  async leave(): Promise<void> {
    if (this.#end.signal.aborted) return;
    this.#end.abort();
    this.#members = this.#members.filter(({ id }) => id !== this.self);
    await this.#running;
    await this.#delete(leaseName(this.self)).catch((thrown) =>
      this.#options.log.warn({ error: toSluiceError(thrown).message }, 'replica: its lease runs out by itself'),
    );
  }

  /** Silence of our own renewals that is longer was an absence. */
  get #gapMs(): number {
    return 3 * this.#options.renewMs;
  }

  async #renew(self: Replica, signal: AbortSignal): Promise<void> {
    const { namespace, leaseSeconds, renewMs, log } = this.#options;
    while (!signal.aborted) {
      this.#renewNow = new AbortController();
      const lease: Lease = {
        apiVersion: LEASES.apiVersion,
        kind: LEASES.kind,
        metadata: {
          name: leaseName(self.id),
          namespace,
          labels: { [REPLICA_LABEL]: 'true' },
          annotations: {
            [API_ANNOTATION]: self.api,
            [XDS_ANNOTATION]: self.xds,
            ...(this.#fence !== undefined && { [TERM_ANNOTATION]: String(this.#fence) }),
          },
        },
        spec: { holderIdentity: self.id, leaseDurationSeconds: leaseSeconds, renewTime: microTime(new Date()) },
      };
      const limit = AbortSignal.any([signal, AbortSignal.timeout(2 * renewMs)]);
      try {
        await this.#client.apply(LEASES, lease, { signal: limit });
        this.#othersReady = 0;
      } catch (thrown) {
        if (signal.aborted) return;
        log.warn({ error: toSluiceError(thrown).message }, 'replica: not renewed; again later');
        if (Date.now() - this.#heardAt > leaseSeconds * 1_000) await this.#askOthers(signal);
      }
      await pause(renewMs * (0.9 + 0.2 * Math.random()), AbortSignal.any([signal, this.#renewNow.signal]));
    }
  }

  /**
   * Nothing was heard for so long that this replica is over for the others, if they hear each other. One that is ready has its state:
   * then only this one is cut off, and its proxies go where the others say they belong. If none is, nobody can go on, and all stays.
   */
  async #askOthers(signal: AbortSignal): Promise<void> {
    if (this.#cutOff) return;
    const others = [...this.#seen.values()].filter(({ id }) => id !== this.self);
    const limit = AbortSignal.any([signal, AbortSignal.timeout(ASK_MS)]);
    const asked = others.map(async ({ api }) => {
      const { ok } = await fetch(`${api}/readyz`, { signal: limit });
      if (!ok) throw new Error('not ready');
    });
    const ready = await Promise.any(asked).then(
      () => true,
      () => false,
    );
    this.#othersReady = ready ? this.#othersReady + 1 : 0;
    // Once may be the moment in which the API server comes back for all.
    if (this.#othersReady < 2 || signal.aborted) return;
    this.#cutOff = true;
    this.#options.log.warn({}, 'replica: cut off from the API server, which others reach: its proxies go to them');
    this.#look();
  }

  #changed({ metadata, spec }: Lease): void {
    const { resourceVersion = '', annotations = {} } = metadata ?? {};
    const id = spec?.holderIdentity;
    const { [API_ANNOTATION]: api, [XDS_ANNOTATION]: xds } = annotations;
    if (!id || metadata?.name !== leaseName(id) || api === undefined || xds === undefined) return;
    this.#terms.set(id, Number(annotations[TERM_ANNOTATION] ?? 0));
    const now = steady();
    const known = this.#seen.get(id);
    const durationMs = (spec?.leaseDurationSeconds ?? this.#options.leaseSeconds) * 1_000;
    // The same one again, at a resync, is no renewal.
    const at = known?.resourceVersion === resourceVersion ? known.at : now;
    this.#seen.set(id, { id, api, xds, resourceVersion, at, durationMs });
    if (id === this.self && at === now) {
      this.#contact = heardSelf(this.#contact, now, this.#gapMs);
      this.#heardAt = Date.now();
      this.#cutOff = false;
      this.#forget();
    }
    this.#look();
    if (id === this.self) this.#joined.resolve();
  }

  #gone({ spec }: Lease): void {
    if (spec?.holderIdentity) this.#seen.delete(spec.holderIdentity);
    this.#look();
  }

  #look(): void {
    if (this.#end.signal.aborted) return;
    const live = [...this.#seen.values()].filter((one) =>
      one.id === this.self ? !this.#cutOff : isLive(one, this.#contact),
    );
    const members = live.map(({ id, api, xds }) => ({ id, api, xds })).sort((a, b) => (a.id < b.id ? -1 : 1));
    if (JSON.stringify(members) === JSON.stringify(this.#members)) return;
    this.#members = members;
    this.#options.log.info({ replicas: members.map(({ id }) => id) }, 'replicas');
    for (const listener of this.#listeners) listener();
  }

  #forget(): void {
    for (const { id, at } of this.#seen.values()) {
      if (id === this.self || steady() - at < FORGET_MS) continue;
      this.#delete(leaseName(id)).catch((thrown) =>
        this.#options.log.warn({ replica: id, error: toSluiceError(thrown).message }, 'an old lease is left'),
      );
    }
  }

  async #delete(name: string): Promise<void> {
    const { namespace } = this.#options;
    try {
      await this.#client.json('DELETE', pathOf(LEASES, { namespace, name }), { signal: AbortSignal.timeout(2_000) });
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
    }
  }
}
