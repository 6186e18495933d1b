import type { Resource } from './snapshot.ts';
import { type Plan, type Request, type Settled, Subscription, type View, WILDCARD } from './subscription.ts';

/**
 * State of the world. For listeners and clusters a response holds all that the client is to have (what is missing is
 * removed); for the other kinds it may hold the changed ones alone.
 */
export class SotwSubscription extends Subscription {
  /** The client has named something once: an empty list then means nothing, and no longer everything. */
  #explicit = false;
  #begun = false;
  #lastNonce = '';
  /** Full kinds: the set that was refused; not sent again as it is. */
  #refusedSet: string | undefined;
  /** Resources that the client was sent, so that one to be removed can be sent once more while its removal waits. */
  readonly #kept = new Map<string, Resource>();

  request(request: Request): Settled | undefined {
    // A nonce that is not the last one belongs to a state that the client has not seen the end of; it will ask again.
    if (this.#lastNonce !== '' && request.nonce !== this.#lastNonce) return undefined;
    const settled = this.outstanding === undefined ? undefined : this.settle(request.error);
    this.#rename(request.names);
    return settled;
  }

  #rename(list: readonly string[]): void {
    if (list.length > 0) this.#explicit = true;
    const wildcard = list.includes(WILDCARD) || (list.length === 0 && !this.#explicit);
    const next = new Set(list);
    next.delete(WILDCARD);
    const added = [...next].filter((name) => !this.names.has(name));
    const dropped = [...this.names].filter((name) => !next.has(name));
    if (this.#begun && wildcard && !this.wildcard) this.answered = false;
    this.#begun = true;
    this.wildcard = wildcard;
    this.names.clear();
    for (const name of next) this.names.add(name);
    // Asked for again after an unsubscribe, the client has thrown it away.
    this.forget(added);
    if (added.length > 0) this.answered = false;
    if (!wildcard) {
      this.forget(dropped);
      for (const name of [...this.has.keys()]) if (!next.has(name)) this.#drop(name);
    }
  }

  #drop(name: string): void {
    this.has.delete(name);
    this.#kept.delete(name);
  }

  plan(view: View): Plan | undefined {
    if (this.waiting || !this.#begun) return undefined;
    return this.full ? this.#planFull(view) : this.#planChanged(view);
  }

  #planFull(view: View): Plan | undefined {
    const target = [...this.wanted(view)];
    const names = new Set(target.map((resource) => resource.name));
    const gone = [...this.has.keys()].filter((name) => !names.has(name));
    if (view.holdRemovals) target.push(...gone.map((name) => this.#kept.get(name)!));
    const same = target.every((r) => this.holds(r)) && (view.holdRemovals || gone.length === 0);
    if (this.answered && (same || setKey(target) === this.#refusedSet)) return undefined;
    return { resources: target, removed: [], target };
  }

  #planChanged(view: View): Plan | undefined {
    const target = [...this.wanted(view)];
    const due = target.filter((resource) => this.due(resource));
    // Nothing to say of names that do not exist: SotW can not express it for these kinds; the client has a timer.
    if (due.length === 0) {
      this.limit = Number.POSITIVE_INFINITY;
      return undefined;
    }
    return { resources: due.slice(0, this.limit), removed: [], target };
  }

  override sent(plan: Plan, nonce: string): void {
    super.sent(plan, nonce);
    this.#lastNonce = nonce;
    for (const resource of plan.resources) this.#kept.set(resource.name, resource);
  }

  protected remember(plan: Plan, before: Map<string, string | undefined>): void {
    if (!this.full) return;
    const names = new Set(plan.resources.map((resource) => resource.name));
    for (const [name, version] of [...this.has]) {
      if (names.has(name)) continue;
      before.set(name, version);
      this.#drop(name);
    }
  }

  protected override refuse(plan: Plan): void {
    // Envoy applies the good ones of a refused set itself (listener_manager_impl.cc, cds_api_helper.cc).
    if (this.full) this.#refusedSet = setKey(plan.resources);
    else super.refuse(plan);
  }
}

function setKey(resources: readonly Resource[]): string {
  return resources
    .map((resource) => resource.id)
    .sort((a, b) => a - b)
    .join();
}
