/**
 * To which sockets of a SO_REUSEPORT group new connections are steered while a handover goes on. A group is `old` sockets
 * of the old epoch, in an order that nobody need know, and after them `fresh` ones of the new epoch: listen() appends.
 */
export interface GroupSize {
  readonly old: number;
  readonly fresh: number;
}

/** To the old epoch alone: also while the new one's sockets come, and go again when it dies. */
export function toOld({ old }: GroupSize): number[] {
  return range(0, old);
}

/** To the new epoch alone, as long as none of the old one's sockets has left. */
export function toFresh({ old, fresh }: GroupSize): number[] {
  return range(old, old + fresh);
}

/**
 * One step for each old socket that is taken out of the group: where new connections are steered from before it leaves
 * until after. What leaves is replaced by the last one, a new epoch's socket, so that all indices from `old` on are
 * always the new epoch's, and before a socket leaves the last index must be out of use. When nothing is left but that
 * index, the last old socket leaves: then it is out of range, and the kernel's own choice finds the new epoch alone. It
 * never points to an old socket while `fresh >= old`, as it is with one concurrency for both.
 */
export function removalSteps({ old, fresh }: GroupSize): number[][] {
  return range(0, old).map((removed) => {
    const last = old + fresh - removed - 1;
    return last > old ? range(old, last) : [Math.max(last, 0)];
  });
}

function range(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);
}
