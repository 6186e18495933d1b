/** What one client believes of its requests, by id. */
export interface Belief {
  readonly name: string;
  readonly answered: ReadonlySet<string>;
  readonly refused: ReadonlySet<string>;
  readonly failedIds: ReadonlySet<string>;
}

export interface Mismatch {
  readonly client: string;
  readonly id: string;
  readonly what: string;
  /** The client had counted the request already as failed, or as answered, or not at all. */
  readonly counted: 'answered' | 'failed' | 'no';
}

/**
 * Holds the clients' beliefs against what the upstream saw. Pure. An answer is right only when the upstream saw its
 * request exactly once; a refused request must not have been seen; an id that nobody sent must not exist.
 */
export function reconcile(beliefs: readonly Belief[], seen: ReadonlyMap<string, number>): Mismatch[] {
  const mismatches: Mismatch[] = [];
  const known = new Map<string, Belief>();
  for (const belief of beliefs) {
    known.set(belief.name, belief);
    for (const id of belief.answered) {
      const count = seen.get(id) ?? 0;
      if (count === 1) continue;
      const what = count === 0 ? 'answered, but the upstream never saw it' : `seen ${count} times by the upstream`;
      mismatches.push({ client: belief.name, id, what, counted: 'answered' });
    }
    for (const id of belief.refused) {
      if (seen.has(id)) {
        mismatches.push({
          client: belief.name,
          id,
          what: 'refused before sent, but the upstream saw it',
          counted: 'no',
        });
      }
    }
  }
  for (const [id, count] of seen) {
    const client = id.slice(0, id.indexOf('/'));
    const belief = known.get(client);
    if (belief === undefined) mismatches.push({ client, id, what: 'seen, but no client sent it', counted: 'no' });
    else if (belief.failedIds.has(id)) {
      if (count > 1) mismatches.push({ client, id, what: `failed, and seen ${count} times`, counted: 'failed' });
    } else if (!belief.answered.has(id) && !belief.refused.has(id)) {
      mismatches.push({ client, id, what: 'seen by the upstream, but never answered', counted: 'no' });
    }
  }
  return mismatches;
}
