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
  /**
   * Full kinds: the set that was sent last, taken or not. Of a refused set a client may have taken a part (Envoy takes the
   * good ones: listener_manager_impl.cc, cds_api_helper.cc), so any other set is sent, even the one from before.
   */
  readonly #last = new Map<string, Resource>();

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
      for (const name of [...this.has.keys()]) if (!next.has(name)) this.has.delete(name);
      for (const name of [...this.#last.keys()]) if (!next.has(name)) this.#last.delete(name);
    }
  }

  plan(view: View): Plan | undefined {
    if (this.waiting || !this.#begun) return undefined;
    return this.full ? this.#planFull(view) : this.#planChanged(view);
  }

  #planFull(view: View): Plan | undefined {
    const target = [...this.wanted(view)];
    const names = new Set(target.map((resource) => resource.name));
    if (view.holdRemovals) for (const [name, resource] of this.#last) if (!names.has(name)) target.push(resource);
    const same =
      target.length === this.#last.size && target.every((r) => this.#last.get(r.name)?.version === r.version);
    if (this.answered && same) return undefined;
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
    this.#last.clear();
    if (this.full) for (const resource of plan.resources) this.#last.set(resource.name, resource);
  }

  protected remember(plan: Plan, before: Map<string, string | undefined>): void {
    if (!this.full) return;
    const names = new Set(plan.resources.map((resource) => resource.name));
    for (const [name, version] of [...this.has]) {
      if (names.has(name)) continue;
      before.set(name, version);
      this.has.delete(name);
    }
  }

  protected override refuse(plan: Plan): void {
    if (!this.full) super.refuse(plan);
  }
}
