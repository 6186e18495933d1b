/**
 * A HotUpgrade by OpenKruise, as two pure functions: (SidecarSet, wish) -> its next form, and (Pod, SidecarSet, words of its agents)
 * -> the Pod's next step.
 *
 *   the planner chooses a Pod     label turn.sluice.dev/SET: N on it; the set's updateStrategy.selector takes no other
 *      |  OpenKruise: image of the Empty container = B; it takes that one for the working one from now on
 *   A serves, B starts            -- does not come up --> failed --undo--> B Empty, and OpenKruise is told that A is the working one
 *      |  B's postStart returns when its epoch serves: ready
 *      |  OpenKruise: image of A = Empty, at once. The kubelet runs A's preStop, which holds it until its epoch may end
 *   A is becoming Empty           (drains; nothing is cut)
 *      |  preStop returns, A ends, the Empty one starts
 *   done
 *
 * Why not by `partition` while a rollout is under way: OpenKruise then chooses by its own order (`SortUpdateIndexes`: newest first), and
 * would begin Pods that are no canary, or all those of one zone; and it refuses partition and selector together
 * (`validateSidecarSetUpdateStrategy`). So a stage is the Pods that have the label. At the end the set gets the HotUpgrade's
 * partition, and no selector.
 */
import type { KubernetesObject, V1Container, V1LabelSelector, V1Pod } from '@kubernetes/client-node';
import type { LabelSelector } from '@sluice/contract';
import { decidePair } from './in-place.ts';
import { atRest, HASH, HASH_WITHOUT_IMAGE, type KruisePod, notUpdated, readKruise } from './kruise-pod.ts';
import type { AgentWords, FleetWish, ImageChange, PodStep, Prepared, SetRefusedReason, Wish } from './provider.ts';

/** What we read of a SidecarSet; all else of it stays. */
export interface SidecarSet extends KubernetesObject {
  readonly spec?: {
    readonly namespace?: string;
    readonly selector?: V1LabelSelector;
    readonly containers?: readonly SidecarContainer[];
    readonly initContainers?: readonly SidecarContainer[];
    readonly updateStrategy?: {
      readonly type?: string;
      readonly paused?: boolean;
      readonly selector?: V1LabelSelector;
      readonly partition?: number | string;
      readonly maxUnavailable?: number | string;
    };
  };
}

type SidecarContainer = V1Container & {
  readonly upgradeStrategy?: { readonly upgradeType?: string; readonly hotUpgradeEmptyImage?: string };
};

/** On the set: the number of the last turn, and what it had before its image was changed last. */
const TURN = 'sluice.dev/turn';
const BEFORE = 'sluice.dev/image-before';
/** On a Pod. Names of SidecarSets have at most 63 characters, as those of labels. */
const turnLabel = (set: string) => `turn.sluice.dev/${set}`;

export type SetStep = Prepared | { readonly type: 'change'; readonly patch: object; readonly why: string };

/** The next form of the SidecarSet. A merge patch with its resourceVersion: refused with Conflict when it has changed since. */
export function decideSet(set: SidecarSet, wish: FleetWish): SetStep {
  const name = set.metadata?.name ?? '';
  const container = set.spec?.containers?.find((one) => one.name === wish.container);
  const refused = container === undefined ? noContainer(set, wish) : refusedSet(set, container, wish);
  if (container === undefined || refused !== undefined) return refused as Prepared;
  const emptyImage = container.upgradeStrategy?.hotUpgradeEmptyImage ?? '';
  const image = imageFor(set, container, wish);
  if (image === undefined) {
    return refuse(
      'NoImageBefore',
      `SidecarSet ${name} had ${wish.image} from the beginning: there is nothing to go back to`,
    );
  }
  const strategy = set.spec?.updateStrategy ?? {};
  const ended = wish.kept !== undefined;
  const fresh = !ended && (container.image !== image || strategy.selector === undefined);
  const turn = turnOf(set) + (fresh ? 1 : 0);
  const wanted = {
    selector: ended ? null : { matchLabels: { [turnLabel(name)]: String(turn) } },
    partition: wish.kept ?? 0,
    paused: wish.paused,
    // OpenKruise counts a Pod until the old container has ended; where only the start counts, it is the planner that limits.
    maxUnavailable: ended || wish.until === 'reset' ? wish.maxUnavailable : '100%',
  };
  const same =
    container.image === image &&
    !fresh &&
    (strategy.selector === undefined) === ended &&
    (strategy.partition ?? 0) === wanted.partition &&
    (strategy.paused ?? false) === wanted.paused &&
    (strategy.maxUnavailable ?? 1) === wanted.maxUnavailable;
  if (same) return { type: 'ready', image, emptyImage };
  const annotations = { [TURN]: String(turn), ...(container.image !== image && { [BEFORE]: container.image }) };
  const containers = set.spec?.containers?.map((one) => (one === container ? { ...one, image } : one));
  return {
    type: 'change',
    patch: {
      metadata: { resourceVersion: set.metadata?.resourceVersion, annotations },
      spec: { ...(container.image !== image && { containers }), updateStrategy: wanted },
    },
    why: `SidecarSet ${name}: ${image}${ended ? '' : `, turn ${turn}`}${wish.paused ? ', paused' : ''}`,
  };
}

/** Where it goes back: the one of its two last images that is not the target. */
function imageFor(set: SidecarSet, container: SidecarContainer, { back, image }: FleetWish): string | undefined {
  if (!back) return image;
  const before = set.metadata?.annotations?.[BEFORE];
  if (container.image !== image) return container.image;
  return before === image ? undefined : before;
}

function noContainer({ metadata, spec }: SidecarSet, { container }: FleetWish): Prepared {
  const init = spec?.initContainers?.some(({ name }) => name === container) ?? false;
  const why = init ? 'among its containers: OpenKruise does not upgrade init containers in place' : '';
  return refuse('NoSuchContainer', `SidecarSet ${metadata?.name} has no ${container} ${why}`.trim());
}

function refusedSet(
  { metadata, spec }: SidecarSet,
  container: SidecarContainer,
  wish: FleetWish,
): Prepared | undefined {
  const name = `SidecarSet ${metadata?.name}`;
  const { upgradeType, hotUpgradeEmptyImage } = container.upgradeStrategy ?? {};
  if (upgradeType !== 'HotUpgrade') {
    return refuse(
      'NotHotUpgrade',
      `${name}: container ${container.name} has upgradeType ${upgradeType ?? 'ColdUpgrade'}`,
    );
  }
  if (hotUpgradeEmptyImage === wish.image)
    return refuse('EmptyIsTarget', `${wish.image} is the Empty image of ${name}`);
  const strategy = spec?.updateStrategy ?? {};
  if (strategy.type === 'NotUpdate') return refuse('NotRollingUpdate', `${name} has updateStrategy NotUpdate`);
  if (spec?.namespace !== wish.namespace || canonical(spec?.selector) !== canonical(wish.selector)) {
    return refuse(
      'OtherPods',
      `${name} and the HotUpgrade do not select the same Pods: expected its namespace and selector`,
    );
  }
  const chosen = strategy.selector;
  const ours = [turnLabel(metadata?.name ?? '')];
  if (
    chosen !== undefined &&
    (chosen.matchExpressions?.length || `${Object.keys(chosen.matchLabels ?? {})}` !== `${ours}`)
  ) {
    return refuse('OtherSelector', `${name}: somebody else chooses its Pods by updateStrategy.selector`);
  }
  return undefined;
}

export type KruiseStep = Exclude<PodStep, { readonly change: ImageChange }> | KruiseChange;

export interface KruiseChange {
  readonly type: 'upgrade' | 'undo';
  /** What becomes of the Pod's images; of an upgrade it is OpenKruise that changes it. */
  readonly change: ImageChange;
  readonly why: string;
  /** A strategic merge patch of the Pod. */
  readonly patch: object;
}

/** The next step of one Pod. `undo` is what a failed one is taken back by. */
export function decideKruisePod(pod: V1Pod, set: SidecarSet, wish: Wish, agents: AgentWords): KruiseStep {
  const step = decidePair(pod, wish, agents);
  if (step.type === 'gone' || step.type === 'refused') return step;
  const name = set.metadata?.name ?? '';
  const kruise = readKruise(pod, name, wish.container);
  const refused = refusedPod(pod, kruise, name, wish);
  if (refused !== undefined) return refused;
  if ('change' in step) {
    if (step.type === 'upgrade') return turnFor(pod, set, kruise, wish, step.change);
    // The one that OpenKruise takes for the working one it never makes Empty: that is for us, as after a failure.
    if (step.change.container === kruise.working) return undoOf(pod, name, wish, step.change, step.why);
    return wait(true, `OpenKruise makes ${step.change.container} Empty when the Pod's other containers are ready`);
  }
  if (step.type === 'wait' && kruise.pending.length > 0) {
    return wait(
      step.started,
      `${step.why}; its kubelet has not taken the new image of ${kruise.pending.join(', ')} yet`,
    );
  }
  return step;
}

/** A Pod whose new container failed, as it is to be again. OpenKruise alone would leave the pair like that. */
export function undoOf(pod: V1Pod, set: string, wish: Wish, change: ImageChange, why: string): KruiseChange {
  const other = `${wish.container}-${change.container.endsWith('-1') ? 2 : 1}`;
  return {
    type: 'undo',
    change,
    why,
    patch: {
      metadata: {
        ...identity(pod),
        labels: { [turnLabel(set)]: null },
        // Were it not told, it would see a ready Pod in an upgrade, and make the one that serves Empty.
        annotations: atRest(pod, wish.container, other, change.container),
      },
      spec: { containers: [{ name: change.container, image: change.image }] },
    },
  };
}

function turnFor(pod: V1Pod, set: SidecarSet, kruise: KruisePod, wish: Wish, change: ImageChange): KruiseStep {
  const name = set.metadata?.name ?? '';
  const image = set.spec?.containers?.find((one) => one.name === wish.container)?.image;
  if (image !== wish.image) return wait(false, `SidecarSet ${name} has ${image}`);
  if (kruise.hashWithoutImage !== set.metadata?.annotations?.[HASH_WITHOUT_IMAGE]) {
    const why = `more than an image of SidecarSet ${name} has changed since the Pod was made: make the Pod anew`;
    return { type: 'refused', reason: 'NotUpgradable', why };
  }
  const turn = String(turnOf(set));
  // It counts as done for OpenKruise: its turn came before, and was taken back.
  const done = kruise.hash === set.metadata?.annotations?.[HASH];
  const has = pod.metadata?.labels?.[turnLabel(name)] === turn;
  // While it is paused it begins nothing: then its start is not late.
  const paused = set.spec?.updateStrategy?.paused ?? false;
  if (has && !done) return wait(!paused, paused ? `SidecarSet ${name} is paused` : 'OpenKruise has not begun it yet');
  const labels = { [turnLabel(name)]: turn };
  const metadata = { ...identity(pod), labels, ...(done && { annotations: notUpdated(pod, name) }) };
  return {
    type: 'upgrade',
    change,
    why: `its turn has come: ${wish.image} for container ${change.container}`,
    patch: { metadata },
  };
}

function refusedPod(pod: V1Pod, { injected, working }: KruisePod, set: string, wish: Wish): KruiseStep | undefined {
  if (!injected || working === undefined) {
    return { type: 'refused', reason: 'NotInjected', why: `SidecarSet ${set} did not give the Pod this pair` };
  }
  const imageOf = (container: string) => pod.spec?.containers.find(({ name }) => name === container)?.image;
  if (imageOf(working) !== wish.emptyImage) return undefined;
  const why = `OpenKruise takes ${working} for the working container, and it is Empty`;
  return { type: 'refused', reason: 'WorkingContainer', why };
}

function turnOf({ metadata }: SidecarSet): number {
  return Number(metadata?.annotations?.[TURN]) || 0;
}

const identity = ({ metadata }: V1Pod) => ({ uid: metadata?.uid, resourceVersion: metadata?.resourceVersion });
const wait = (started: boolean, why: string): KruiseStep => ({ type: 'wait', started, why });
const refuse = (reason: SetRefusedReason, why: string): Prepared => ({ type: 'refused', reason, why });

/** Equal for selectors that say the same in another order, or `In` one value for a label. */
export function canonical(selector: LabelSelector | V1LabelSelector | undefined): string {
  const labels = Object.entries(selector?.matchLabels ?? {}).map(([key, value]) => `${key} In ${value}`);
  const more = (selector?.matchExpressions ?? []).map(
    ({ key, operator, values = [] }) => `${key} ${operator} ${[...values].sort().join(',')}`,
  );
  return [...new Set([...labels, ...more])]
    .map((one) => one.trim())
    .sort()
    .join('; ');
}
