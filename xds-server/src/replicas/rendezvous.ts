import { createHash } from 'node:crypto';

/**
 * Whose proxy it is: of all replicas the one with the highest hash of (replica, proxy) — rendezvous hashing
 * (https://en.wikipedia.org/wiki/Rendezvous_hashing). Whoever has the same list of replicas says the same, the proxies are spread
 * evenly, and when a replica comes or goes only those move that it takes or had. undefined: there is no replica.
 */
export function ownerOf(proxy: string, replicas: Iterable<string>): string | undefined {
  let best: { id: string; score: number } | undefined;
  for (const id of replicas) {
    const score = scoreOf(id, proxy);
    // Of equal ones the smaller id: the order of the list must not matter.
    if (best === undefined || score > best.score || (score === best.score && id < best.id)) best = { id, score };
  }
  return best?.id;
}

function scoreOf(id: string, proxy: string): number {
  return createHash('sha256')
    .update(JSON.stringify([id, proxy]))
    .digest()
    .readUIntBE(0, 6);
}
