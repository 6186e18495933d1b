/**
 * What a Pod's containers and its agents' words mean for its part in a rollout, as pure functions. Nothing is remembered beside
 * the member of the rollout: a new leader sees the same.
 */
import type { V1Container, V1Pod } from '@kubernetes/client-node';
import type { MemberState, RolloutMember, RolloutPhase, RolloutPods } from '@sluice/contract';
import type { Observed } from '../rollout/state.ts';
import { imageOf } from './in-place.ts';
import type { AgentWords, PodStep, Provider, Slot, StepOptions, Wish } from './provider.ts';
import { proxyOfPod } from './words.ts';

/** As `progressDeadlineSeconds` of a Deployment: a new container that does not serve after so long has failed. */
export const START_LIMIT_MS = 600_000;

/** All that is known of one Pod. */
export interface PodFacts {
  readonly pod: V1Pod;
  readonly words: AgentWords;
  readonly pods: RolloutPods;
  readonly emptyImage: string;
  readonly decide: Provider['decide'];
}

const isEmpty = (image: string | undefined, { emptyImage }: PodFacts): boolean => image === emptyImage;

/** The container of that slot of the pair `name`; a Pod's own containers may be called so too. */
export function slotContainer({ spec }: V1Pod, name: string, slot: string): V1Container | undefined {
  const all = [...(spec?.containers ?? []), ...(spec?.initContainers ?? [])];
  return all.find((one) => one.name === `${name}-${slot}`);
}

function containerOf({ pod, pods }: PodFacts, slot: Slot): V1Container | undefined {
  return slotContainer(pod, pods.container, slot);
}

/** Image of the container whose agent says that it serves. undefined: nobody says so, or both do. */
export function servingImage(facts: PodFacts): string | undefined {
  const serving = (['1', '2'] as const).filter((slot) =>
    facts.words[slot]?.epochs.some((epoch) => epoch.state === 'serving'),
  );
  const [slot] = serving;
  return serving.length === 1 && slot !== undefined ? containerOf(facts, slot)?.image : undefined;
}

/** The upgrade by which the epoch that serves has come, as its agent knows it. */
export function lastUpgrade({ words }: PodFacts): string | undefined {
  const epochs = [...(words['1']?.epochs ?? []), ...(words['2']?.epochs ?? [])];
  return epochs.find((epoch) => epoch.state === 'serving')?.upgradeId;
}

/** The image that the rollout wants in this Pod. undefined: it is wanted by version, and the Pod's image has a digest and no tag. */
export function targetImage(facts: PodFacts): string | undefined {
  const { target } = facts.pods;
  const images = (['1', '2'] as const).map((slot) => containerOf(facts, slot)?.image);
  const own = images.find((image) => image !== undefined && !isEmpty(image, facts));
  // Both containers are of one repository, so it does not matter which one is looked at in the middle of an upgrade.
  return imageOf(target, servingImage(facts) ?? own ?? '');
}

const BACK: ReadonlySet<MemberState> = new Set(['flipping', 'rolledBack', 'stuck']);

/** What a Pod is to become by the state of its member; `member` is undefined for one that is not in the rollout yet. */
export function wishOf(facts: PodFacts, member?: Pick<RolloutMember, 'state' | 'from'>): Wish | undefined {
  const { pods, emptyImage } = facts;
  const back = member !== undefined && BACK.has(member.state);
  const image = back ? member.from : targetImage(facts);
  return image === undefined ? undefined : { container: pods.container, emptyImage, image };
}

/**
 * What a provider may do with the Pod of a member in that state: an order that is stored may be begun at any time, but not when all that is
 * not begun is being given up.
 */
export function leave(state: MemberState, phase: RolloutPhase): Pick<StepOptions, 'begin' | 'undo'> {
  const givenUp = phase === 'Aborting' || phase === 'RollingBack';
  return {
    begin: (state === 'starting' && !givenUp) || state === 'flipping',
    // What does not come up is left as it is until the rollout has taken in that it failed.
    // One that waits has it from an earlier rollout, and could not be begun with it.
    undo: state !== 'starting' && state !== 'flipping',
  };
}

/** A Pod as its rollout sees it. undefined: it has no part in it, for it has ended, or can not be upgraded and was not begun. */
export function observePod(facts: PodFacts, member: RolloutMember | undefined, now: number): Observed | undefined {
  const { pod, words } = facts;
  const { namespace = '', name = '', uid = '', labels } = pod.metadata ?? {};
  const same = member?.uid === uid ? member : undefined;
  const wish = wishOf(facts, same);
  const step = wish === undefined ? undefined : facts.decide(pod, wish, words);
  if (step?.type === 'gone') return undefined;
  const begun = same !== undefined && orderOf(same) !== undefined;
  if ((wish === undefined || step?.type === 'refused') && !begun) return undefined;
  const serving = servingImage(facts);
  const target = targetImage(facts);
  const what = same === undefined ? undefined : stepOf(same, step, wish, serving, now);
  return {
    name: proxyOfPod(namespace, name),
    uid,
    labels: { ...labels, 'kubernetes.io/hostname': pod.spec?.nodeName ?? '' },
    // One that is still in the middle of what an earlier rollout began is nobody's first choice.
    reachable: isHeard(words) && (begun || !isBetween(step)),
    available: serving !== undefined && isReady(pod),
    // Of one on its way back the wish is not the target.
    upToDate: target !== undefined && (serving === target || (step?.type === 'done' && wish?.image === target)),
    ...(serving !== undefined && { serving }),
    ...(what !== undefined && { step: what }),
  };
}

export function isHeard(words: AgentWords): boolean {
  return words['1'] !== undefined || words['2'] !== undefined;
}

function isBetween(step: PodStep | undefined): boolean {
  return step?.type === 'reset' || (step?.type === 'wait' && step.started);
}

function orderOf({ state, upgradeId, backId }: RolloutMember): string | undefined {
  if (state === 'flipping') return backId;
  return state === 'starting' || state === 'draining' ? upgradeId : undefined;
}

type Told = NonNullable<Observed['step']>;

/** What became of the order. undefined: it is not begun. */
function stepOf(
  member: RolloutMember,
  step: PodStep | undefined,
  wish: Wish | undefined,
  serving: string | undefined,
  now: number,
): Told | undefined {
  const id = orderOf(member);
  if (id === undefined) return undefined;
  const told = (state: Told['state'], reason: string): Told => ({ id, state, reason: reason.slice(0, 500), cut: 0 });
  if (step === undefined || wish === undefined) return told('failed', 'what it is to become is not known');
  const isServed = serving === wish.image;
  switch (step.type) {
    case 'done':
      return told('done', `${wish.image} serves`);
    case 'reset':
      return told(isServed ? 'serving' : 'starting', step.why);
    case 'wait':
      // A wait for what was before this order, such as the end of another upgrade.
      if (!step.started) return undefined;
      if (isServed) return told('serving', step.why);
      return member.state === 'starting' && now - member.since > START_LIMIT_MS
        ? told('failed', `does not serve after ${START_LIMIT_MS / 1000} s: ${step.why}`)
        : told('starting', step.why);
    case 'failed':
      // The old container came to nothing while the new one serves: then there is nothing left to wait for.
      return told(isServed ? 'serving' : 'failed', step.why);
    case 'refused':
      return told('failed', step.why);
    default:
      return undefined;
  }
}

/** Why a Pod can have no part in the rollout. undefined: it has, or it has ended. */
export function refusalOf(facts: PodFacts): { readonly reason: string; readonly message: string } | undefined {
  const wish = wishOf(facts);
  if (wish === undefined) {
    const message = 'its image has a digest and no tag: the target has to be an image and not a version';
    return { reason: 'NoTag', message };
  }
  const step = facts.decide(facts.pod, wish, facts.words);
  return step.type === 'refused' ? { reason: step.reason, message: step.why } : undefined;
}

export function isReady({ status }: V1Pod): boolean {
  return status?.conditions?.some((one) => one.type === 'Ready' && one.status === 'True') ?? false;
}
