import type { V1Pod } from '@kubernetes/client-node';
import type { HotUpgrade } from './hotupgrade.ts';
import { canonical } from './open-kruise.ts';
import { selects } from './selector.ts';

export interface Claims {
  /** Pods that this HotUpgrade has. */
  readonly own: readonly V1Pod[];
  /** Pods that it selects and an older one has. */
  readonly conflicts: readonly { readonly pod: string; readonly owner: string }[];
}

/** Which Pods a HotUpgrade has, of those of its namespace: of several that select one, the oldest has it. */
export function claimsOf(hup: HotUpgrade, all: readonly HotUpgrade[], pods: readonly V1Pod[]): Claims {
  const { namespace, uid } = hup.metadata ?? {};
  const older = all.filter(
    (one) => one.metadata?.namespace === namespace && one.metadata?.uid !== uid && isOlder(one, hup),
  );
  const own: V1Pod[] = [];
  const conflicts: Claims['conflicts'][number][] = [];
  for (const pod of pods) {
    if (pod.metadata?.namespace !== namespace || !selects(hup.spec.selector, pod.metadata?.labels)) continue;
    const owner = oldest(older.filter((one) => selects(one.spec.selector, pod.metadata?.labels)));
    if (owner === undefined) own.push(pod);
    else conflicts.push({ pod: pod.metadata?.name ?? '', owner: owner.metadata?.name ?? '' });
  }
  return { own, conflicts };
}

/**
 * Who has the SidecarSet that this HotUpgrade names: an older one that names it for the same Pods. It has one image for all, and two
 * that both set it would do so without end. undefined: this one has it.
 */
export function sidecarSetOwner(hup: HotUpgrade, all: readonly HotUpgrade[]): HotUpgrade | undefined {
  const { metadata, spec } = hup;
  if (spec.sidecarSet === undefined) return undefined;
  return oldest(
    all.filter(
      (one) =>
        one.metadata?.namespace === metadata?.namespace &&
        one.metadata?.uid !== metadata?.uid &&
        one.spec.sidecarSet === spec.sidecarSet &&
        canonical(one.spec.selector) === canonical(spec.selector) &&
        isOlder(one, hup),
    ),
  );
}

/** The HotUpgrade that has that Pod. */
export function ownerOf(pod: V1Pod, all: readonly HotUpgrade[]): HotUpgrade | undefined {
  const { namespace, labels } = pod.metadata ?? {};
  return oldest(all.filter((one) => one.metadata?.namespace === namespace && selects(one.spec.selector, labels)));
}

function oldest(all: readonly HotUpgrade[]): HotUpgrade | undefined {
  return all.reduce<HotUpgrade | undefined>((first, one) => (first && isOlder(first, one) ? first : one), undefined);
}

/** Times have whole seconds: of one second the smaller uid is the older, for whoever looks. */
function isOlder(a: HotUpgrade, b: HotUpgrade): boolean {
  const [atA, atB] = [a, b].map(({ metadata }) => new Date(metadata?.creationTimestamp ?? 0).getTime());
  if (atA !== atB) return (atA ?? 0) < (atB ?? 0);
  return (a.metadata?.uid ?? '') < (b.metadata?.uid ?? '');
}
