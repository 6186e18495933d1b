/**
 * All subscriptions of one stream, and the order in which they are served: make before break.
 *
 *   CDS > EDS, SDS > LDS > RDS     a listener or route goes out after what it refers to was taken or refused
 *   removals of CDS, EDS, SDS      only after listeners and routes have settled: until then something may refer to them
 *   ECDS, RTDS                     never wait: nothing may hold a drain order up
 *
 * https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
 */
import { RESOURCE_TYPES, type ResourceKind } from '../resources/types.ts';
import { DeltaSubscription } from './delta.ts';
import type { Resource, Snapshot } from './snapshot.ts';
import { SotwSubscription } from './sotw.ts';
import type { Plan, Request, Settled, Subscription, View } from './subscription.ts';

export type Mode = 'sotw' | 'delta';

const ORDER: readonly ResourceKind[] = RESOURCE_TYPES.map((type) => type.kind);
/** A response of these kinds is the whole state. */
const FULL_KINDS: ReadonlySet<ResourceKind> = new Set(['cds', 'lds']);
const WAITS_FOR: Readonly<Partial<Record<ResourceKind, readonly ResourceKind[]>>> = {
  lds: ['cds', 'eds', 'sds'],
  rds: ['cds', 'eds', 'sds', 'lds'],
};
const REMOVAL_WAITS_FOR: Readonly<Partial<Record<ResourceKind, readonly ResourceKind[]>>> = {
  cds: ['lds', 'rds'],
  eds: ['lds', 'rds'],
  sds: ['lds', 'rds'],
};

export interface Outgoing {
  readonly kind: ResourceKind;
  readonly plan: Plan;
  readonly nonce: string;
}

export class Session {
  readonly #mode: Mode;
  readonly #subscriptions = new Map<ResourceKind, Subscription>();
  #snapshot: Snapshot | undefined;
  #nonce = 0;
  /** A client that settles nothing must not hold the rest back for ever: set by the stream's timer. */
  overdue = false;

  constructor(mode: Mode) {
    this.#mode = mode;
  }

  get snapshot(): Snapshot | undefined {
    return this.#snapshot;
  }

  setSnapshot(snapshot: Snapshot | undefined): void {
    this.#snapshot = snapshot;
  }

  /** Names asked for, all kinds. */
  get size(): number {
    let size = 0;
    for (const subscription of this.#subscriptions.values()) size += subscription.size;
    return size;
  }

  request(kind: ResourceKind, request: Request): Settled | undefined {
    let subscription = this.#subscriptions.get(kind);
    if (subscription === undefined) {
      subscription = this.#mode === 'sotw' ? new SotwSubscription(FULL_KINDS.has(kind)) : new DeltaSubscription();
      this.#subscriptions.set(kind, subscription);
    }
    const settled = subscription.request(request);
    if (settled !== undefined) this.overdue = false;
    return settled;
  }

  /** Everything that is to be sent now, in order. Call it after each request and each new snapshot. */
  next(): Outgoing[] {
    const out: Outgoing[] = [];
    if (this.#snapshot === undefined) return out;
    for (const kind of ORDER) {
      const subscription = this.#subscriptions.get(kind);
      if (subscription === undefined || this.#blocked(WAITS_FOR[kind])) continue;
      const plan = subscription.plan(this.#view(kind));
      if (plan === undefined) continue;
      if (kind === 'cds') this.#expectEndpoints(plan, subscription);
      this.#nonce += 1;
      const nonce = String(this.#nonce);
      subscription.sent(plan, nonce);
      out.push({ kind, plan, nonce });
    }
    return out;
  }

  /** Something waits for the client to settle what it was sent. */
  get held(): boolean {
    return [...this.#subscriptions.values()].some((subscription) => subscription.waiting);
  }

  #blocked(kinds: readonly ResourceKind[] | undefined): boolean {
    if (kinds === undefined || this.overdue) return false;
    return kinds.some((kind) => this.#unsettled(kind));
  }

  #unsettled(kind: ResourceKind): boolean {
    const subscription = this.#subscriptions.get(kind);
    if (subscription === undefined) return false;
    // With removals held: what only waits to be removed is not in the way of what refers to something new.
    return (
      subscription.waiting || subscription.plan(this.#plainView(kind, WAITS_FOR[kind] === undefined)) !== undefined
    );
  }

  #view(kind: ResourceKind): View {
    return this.#plainView(kind, this.#blocked(REMOVAL_WAITS_FOR[kind]));
  }

  #plainView(kind: ResourceKind, holdRemovals: boolean): View {
    const snapshot = this.#snapshot!;
    return {
      get: (name: string): Resource | undefined => snapshot.get(kind, name),
      all: () => snapshot.all(kind).values(),
      withholds: (name) => snapshot.withholds?.(kind, name) ?? false,
      holdRemovals,
    };
  }

  /**
   * Envoy warms a changed cluster until its endpoints come, and asks for nothing when it had asked for that name before
   * (envoyproxy/envoy issue 13009): they are sent once more.
   */
  #expectEndpoints(plan: Plan, clusters: Subscription): void {
    const endpoints = this.#subscriptions.get('eds');
    if (endpoints === undefined) return;
    for (const cluster of plan.resources) if (!clusters.holds(cluster)) endpoints.forget(cluster.endpoints);
  }
}
