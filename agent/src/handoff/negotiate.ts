import type { SidecarsetVersions } from './sidecarset.ts';

/** What a starting agent knows of itself. */
export interface Mine {
  readonly slot: string;
  readonly versions?: SidecarsetVersions;
}

/** What the agent of the other slot says of itself. */
export interface Peer {
  readonly slot: string;
  /** Its own version, when it lives in a SidecarSet. */
  readonly version?: number;
  /** Set while an epoch of it accepts. */
  readonly serving?: { readonly epoch: number };
  /** It is starting an epoch, or will again after a crash; absent from an older agent. */
  readonly busy?: boolean;
  /** The next epoch number that neither of the two has used. */
  readonly nextEpoch: number;
}

export type Role =
  /** Nobody serves: start a first epoch. */
  | { readonly role: 'first'; readonly epoch: number }
  /** Take over from the peer's epoch. */
  | { readonly role: 'new'; readonly epoch: number; readonly from: number }
  /** The peer is the newer one: start nothing. */
  | { readonly role: 'standby' }
  /** An upgrade is under way and the peer that is to hand over has not been heard yet, or has nothing that serves yet. */
  | { readonly role: 'wait' };

/**
 * Which of two agents does what at its start. Both sides run it on the same facts and never both come out as the one that
 * takes over: of two versions exactly one is larger, and without versions only one side has an epoch that serves.
 */
export function negotiate(mine: Mine, peer: Peer | undefined, nextEpoch = 0): Role {
  const { own, alt } = mine.versions ?? { own: 0, alt: 0 };
  if (peer === undefined) return alt !== 0 && own > alt ? { role: 'wait' } : { role: 'first', epoch: nextEpoch };
  const epoch = Math.max(nextEpoch, peer.nextEpoch);
  const theirs = peer.version ?? alt;
  const older = mine.versions !== undefined && theirs !== 0 && own < theirs;
  if (peer.serving) return older ? { role: 'standby' } : { role: 'new', epoch, from: peer.serving.epoch };
  if (older) return { role: 'standby' };
  // Two that start one each would share the connections.
  return peer.busy === true ? { role: 'wait' } : { role: 'first', epoch };
}

/** `stay`: this is its place for good. `again`: to be negotiated anew in a moment. */
export type Outcome = 'start' | 'take-over' | 'stay' | 'again';

/**
 * What follows from a role. @param last long enough was waited: whoever was to serve does not, so somebody else must. An older
 * one then starts in the place of a newer that came to nothing, and is taken over from when that one is well again.
 */
export function outcomeOf({ role }: Role, peer: Peer | undefined, last: boolean): Outcome {
  switch (role) {
    case 'first':
      return 'start';
    case 'new':
      return 'take-over';
    case 'standby':
      if (peer?.serving) return 'stay';
      // Its Envoy crashed and is started again: that ends, one way or the other.
      return last && peer?.busy !== true ? 'start' : 'again';
    case 'wait':
      return last ? 'start' : 'again';
  }
}
