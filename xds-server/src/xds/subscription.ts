/**
 * What a client has asked for of one kind of resource on one stream, and what it has: the rules of
 * https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol as plain state. No sockets, no clock.
 *
 * At most one response of a kind is under way: the next waits for the ACK or NACK, so that a slow client gets the latest
 * state and not every state.
 */
import type { Resource } from './snapshot.ts';

/** The resources of one kind that a client may be given now. */
export interface View {
  get(name: string): Resource | undefined;
  all(): Iterable<Resource>;
  /** Removals wait: something that refers to what is going may still be in use. */
  readonly holdRemovals: boolean;
  /** Of this name nothing is said for now. */
  withholds?(name: string): boolean;
}

export interface Plan {
  readonly resources: readonly Resource[];
  /** Delta only. */
  readonly removed: readonly string[];
  /** SotW: all that the client will have; its hash is the version. Delta: the same as `resources`. */
  readonly target: readonly Resource[];
}

export interface Settled {
  readonly ok: boolean;
  /** What the client said of a refused response. */
  readonly message?: string;
  readonly plan: Plan;
  /** The response was the whole state: what it did not hold is gone. */
  readonly full: boolean;
}

export interface Request {
  /** SotW: all names; delta: names to add. */
  readonly names: readonly string[];
  /** Delta: names to take away. */
  readonly unsubscribe?: readonly string[];
  /** Delta, first request of a stream: name -> version that the client still has. */
  readonly initial?: ReadonlyMap<string, string>;
  readonly nonce: string;
  /** Set: the response of `nonce` was refused. */
  readonly error?: string;
}

export const WILDCARD = '*';
/** Stands in `has` for a name whose absence the client was told. */
export const ABSENT = '';

interface Outstanding {
  readonly nonce: string;
  readonly plan: Plan;
  /** What the client had before of the names in the response; undefined = nothing. */
  readonly before: Map<string, string | undefined>;
}

export abstract class Subscription {
  /** Its responses are the whole state. */
  protected readonly full: boolean;
  protected readonly names = new Set<string>();
  protected wildcard = false;
  /** Name -> version that the client has, the response under way included. */
  protected readonly has = new Map<string, string>();
  /** Name -> version that the client refused when it came alone; sent again only when it changes. */
  protected readonly refused = new Map<string, string>();
  /** Largest number of changes in one response; see settle(). */
  protected limit = Number.POSITIVE_INFINITY;
  protected outstanding: Outstanding | undefined;
  /** A first response was given: an empty one says that there is nothing. */
  protected answered = false;

  constructor(full: boolean) {
    this.full = full;
  }

  get waiting(): boolean {
    return this.outstanding !== undefined;
  }

  /** Number of names asked for, for bounds. */
  get size(): number {
    return this.names.size;
  }

  /** The client settled the response of the returned plan; undefined: it did not. */
  abstract request(request: Request): Settled | undefined;

  /** What should be sent now; undefined: nothing, or a response is under way. Changes nothing. */
  abstract plan(view: View): Plan | undefined;

  /** The plan was sent under this nonce. */
  sent(plan: Plan, nonce: string): void {
    const before = new Map<string, string | undefined>();
    for (const { name, version } of plan.resources) {
      before.set(name, this.has.get(name));
      this.has.set(name, version);
    }
    this.remember(plan, before);
    this.outstanding = { nonce, plan, before };
    this.answered = true;
  }

  protected abstract remember(plan: Plan, before: Map<string, string | undefined>): void;

  /** True when the client has this version, or has just been sent it. */
  holds(resource: Resource): boolean {
    return this.has.get(resource.name) === resource.version;
  }

  /** The client needs these again although they did not change. */
  forget(names: Iterable<string>): void {
    for (const name of names) {
      this.has.delete(name);
      this.refused.delete(name);
      this.outstanding?.before.delete(name);
    }
  }

  /**
   * After a refusal the client has what it had before. Of several changes one may be to blame: they come again in halves,
   * and one refused alone is left out until it changes. So a bad resource never keeps a good one (the drain order) away.
   */
  protected settle(error: string | undefined): Settled {
    const { plan, before } = this.outstanding!;
    this.outstanding = undefined;
    if (error === undefined) {
      this.limit *= 2;
      return { ok: true, plan, full: this.full };
    }
    for (const [name, version] of before) {
      if (version === undefined) this.has.delete(name);
      else this.has.set(name, version);
    }
    this.refuse(plan);
    return { ok: false, message: error, plan, full: this.full };
  }

  protected refuse(plan: Plan): void {
    const changes = plan.resources.length + plan.removed.length;
    if (changes > 1) {
      this.limit = Math.floor(changes / 2);
      return;
    }
    for (const { name, version } of plan.resources) this.refused.set(name, version);
    for (const name of plan.removed) this.refused.set(name, ABSENT);
  }

  protected due(resource: Resource): boolean {
    return !this.holds(resource) && this.refused.get(resource.name) !== resource.version;
  }

  protected *wanted(view: View): Generator<Resource> {
    if (this.wildcard) yield* view.all();
    for (const name of this.names) {
      const resource = view.get(name);
      if (resource !== undefined && !(this.wildcard && isIn(view, resource))) yield resource;
    }
  }
}

/** A view's get() and all() hold the same, so a named resource has come with the wildcard already. */
function isIn(view: View, resource: Resource): boolean {
  return view.get(resource.name) === resource;
}
