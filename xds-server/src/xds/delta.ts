import { ABSENT, type Plan, type Request, type Settled, Subscription, type View, WILDCARD } from './subscription.ts';

/** Incremental: a response holds what changed and the names of what is gone. */
export class DeltaSubscription extends Subscription {
  #begun = false;
  /** Unsubscribed under a wildcard: the client must hear whether it still has them. */
  readonly #owed = new Set<string>();

  constructor() {
    super(false);
  }

  request(request: Request): Settled | undefined {
    // An ACK or NACK counts for its own response only; names count whatever the nonce says.
    const settled =
      this.outstanding !== undefined && request.nonce === this.outstanding.nonce
        ? this.settle(request.error)
        : undefined;
    const first = !this.#begun;
    this.#begun = true;
    // Nothing named in the first request: everything, as an older client says it.
    if (first && request.names.length === 0) this.wildcard = true;
    if (first) for (const [name, version] of request.initial ?? []) this.has.set(name, version);
    for (const name of request.names) this.#subscribe(name, first);
    for (const name of request.unsubscribe ?? []) this.#unsubscribe(name);
    if (!this.wildcard) for (const name of [...this.has.keys()]) if (!this.names.has(name)) this.has.delete(name);
    return settled;
  }

  #subscribe(name: string, first: boolean): void {
    if (name === WILDCARD) {
      if (!this.wildcard) this.answered = false;
      this.wildcard = true;
      return;
    }
    this.names.add(name);
    this.#owed.delete(name);
    // Asked for again: it is sent again even if it did not change, since the client may have dropped it.
    if (!first) this.forget([name]);
  }

  #unsubscribe(name: string): void {
    if (name === WILDCARD) {
      this.wildcard = false;
      this.#owed.clear();
      return;
    }
    if (!this.names.delete(name)) return;
    this.forget([name]);
    if (this.wildcard) this.#owed.add(name);
  }

  plan(view: View): Plan | undefined {
    if (this.waiting || !this.#begun) return undefined;
    const due = [...this.wanted(view)].filter((resource) => this.due(resource));
    const gone = new Set<string>();
    for (const [name, version] of this.has) if (version !== ABSENT && view.get(name) === undefined) gone.add(name);
    for (const name of this.names) {
      if (view.get(name) === undefined && this.has.get(name) !== ABSENT) gone.add(name);
    }
    for (const name of this.#owed) if (view.get(name) === undefined) gone.add(name);
    const removed = [...gone].filter((name) => {
      const known = this.has.has(name);
      if (view.withholds?.(name) === true) return false;
      return this.refused.get(name) !== ABSENT && !(known && view.holdRemovals);
    });
    if (due.length === 0 && removed.length === 0) {
      this.limit = Number.POSITIVE_INFINITY;
      if (this.answered || !this.wildcard) return undefined;
    }
    const resources = due.slice(0, this.limit);
    return { resources, removed: removed.slice(0, this.limit - resources.length), target: resources };
  }

  protected remember(plan: Plan, before: Map<string, string | undefined>): void {
    for (const { name } of plan.resources) this.#owed.delete(name);
    for (const name of plan.removed) {
      before.set(name, this.has.get(name));
      this.#owed.delete(name);
      // A name asked for is remembered as absent, any other is forgotten.
      if (this.names.has(name)) this.has.set(name, ABSENT);
      else this.has.delete(name);
    }
  }
}
