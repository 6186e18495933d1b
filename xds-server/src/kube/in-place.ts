/**
 * One Pod's upgrade by its images alone, as a pure function: (Pod, wish, words of its agents) -> the next step.
 *
 *   slot 1 serves A, slot 2 Empty                                        refused: no such pair, another injector's proxy
 *      |  upgrade: image of slot 2 = B     (only when its kubelet runs the Empty one, so that no old word is heard as new)
 *   slot 1 A, slot 2 B, starting  -- does not come up --> failed --undo--> slot 2 Empty
 *      |  the agent of slot 2 says: an epoch of mine serves
 *   slot 1 A drains, slot 2 B serves
 *      |  the agent of slot 1 says: all my epochs have ended, or may end    (or its container runs no more: nothing is left)
 *      |  reset: image of slot 1 = Empty
 *   slot 1 Empty, slot 2 serves B = done; the next upgrade goes the other way
 *
 * Nothing is remembered: all of it is read from the Pod and its agents, so that a new leader decides the same. OpenKruise resets
 * as soon as the new container is ready; here the agent's verdict alone permits it.
 */
import type { V1ContainerStatus, V1Pod } from '@kubernetes/client-node';
import type { EpochStatus } from '@sluice/contract';
import { foreignProxy } from './foreign.ts';
import { workingContainer } from './kruise-pod.ts';
import type { AgentWords, ImageChange, PodStep, RefusedReason, Slot, Wish } from './provider.ts';

/** The kubelet tries these again and again, but by itself none of them gets well: a wrong image, a bootstrap that is refused. */
const STUCK = [
  'CrashLoopBackOff',
  'ImagePullBackOff',
  'ErrImagePull',
  'ErrImageNeverPull',
  'InvalidImageName',
  'CreateContainerConfigError',
  'CreateContainerError',
  'RunContainerError',
  'PostStartHookError',
];

interface Side {
  readonly slot: Slot;
  readonly name: string;
  readonly init: boolean;
  readonly image: string;
  readonly empty: boolean;
  readonly status: V1ContainerStatus | undefined;
  /** undefined: its agent is not heard. */
  readonly epochs: readonly EpochStatus[] | undefined;
}

export function decidePod(pod: V1Pod, wish: Wish, agents: AgentWords): PodStep {
  if (workingContainer(pod, wish.container) === undefined) return decidePair(pod, wish, agents);
  const why = `OpenKruise has the pair ${wish.container}: it would make the new container Empty again`;
  return refuse('OwnedByKruise', why);
}

/** The same of any pair, whoever changes its images. */
export function decidePair(pod: V1Pod, wish: Wish, agents: AgentWords): PodStep {
  if (pod.metadata?.deletionTimestamp !== undefined || /^(Succeeded|Failed)$/.test(pod.status?.phase ?? '')) {
    return { type: 'gone' };
  }
  const one = sideOf(pod, wish, '1', agents);
  const two = sideOf(pod, wish, '2', agents);
  if (one === undefined || two === undefined) {
    const missing = `${wish.container}-${one === undefined ? 1 : 2}`;
    return refuse('NoSuchContainers', `the Pod has no container ${missing}`);
  }
  const foreign = foreignProxy(pod, [one.name, two.name]);
  if (foreign !== undefined) {
    return refuse('ForeignProxy', `another injector gave the Pod a proxy already: ${foreign}`);
  }
  if (one.empty && two.empty) return refuse('NothingServes', 'both containers are Empty');
  if (one.empty) return decideAtRest(two, one, wish);
  if (two.empty) return decideAtRest(one, two, wish);
  return decideBetween(one, two, wish);
}

/** One container serves, the other is Empty. */
function decideAtRest(serving: Side, idle: Side, wish: Wish): PodStep {
  if (!runs(idle)) return wait(true, `container ${idle.name} is becoming Empty`);
  if (serving.image === wish.image) return { type: 'done' };
  if (serving.epochs === undefined) return wait(false, `the agent of container ${serving.name} is away`);
  if (!serves(serving)) return wait(false, `no epoch of container ${serving.name} serves`);
  return {
    type: 'upgrade',
    change: change(idle, wish.image),
    why: `${wish.image} starts in container ${idle.name} beside ${serving.image}`,
  };
}

/** Neither is Empty: an upgrade is under way, or a flip back. */
function decideBetween(one: Side, two: Side, wish: Wish): PodStep {
  if (serves(one) && serves(two))
    return wait(true, 'the agents of both containers say that they serve: one of them is late');
  const next = serves(one) ? one : serves(two) ? two : undefined;
  const [fresh, former] = one.image === wish.image ? [one, two] : [two, one];
  if (next === undefined) return stuck(fresh, former, wish) ?? wait(true, 'no agent says that it serves');
  const last = next === one ? two : one;
  // It serves not what is wanted, and the other one, which is wanted, has not served yet: it starts.
  if (next.image !== wish.image && last.image === wish.image && !drains(last)) {
    return stuck(last, next, wish) ?? wait(true, `${wish.image} starts in container ${last.name}`);
  }
  // Here `next` serves: what is wanted, or what a wish before this one wanted. Either way `last` has to be Empty first.
  if (over(last)) {
    return {
      type: 'reset',
      change: change(last, wish.emptyImage),
      why: `container ${last.name} holds nothing that is protected`,
    };
  }
  if (last.epochs === undefined) {
    return stuck(last, next, wish) ?? wait(true, `the agent of container ${last.name} is away: there is no verdict`);
  }
  // One that was to take over and never did, for the wish changed meanwhile.
  if (!drains(last))
    return stuck(last, next, wish) ?? wait(true, `container ${last.name} starts, though it is wanted no more`);
  const held = last.epochs.map(({ verdict }) => verdict?.protected ?? 0).reduce((a, b) => a + b, 0);
  return wait(true, `container ${last.name} drains: ${held} protected connections are left`);
}

/** A container that does not come up, though its kubelet tries. While it waits nothing of it runs: to undo it cuts nobody. */
function stuck(fresh: Side, former: Side, wish: Wish): PodStep | undefined {
  const reason = fresh.status?.state?.waiting?.reason;
  if (reason === undefined || !STUCK.includes(reason) || fresh.epochs?.some(alive)) return undefined;
  const said = fresh.status?.state?.waiting?.message ?? fresh.status?.lastState?.terminated?.message;
  const why = `${fresh.image} does not come up in container ${fresh.name} (${reason})${said === undefined ? '' : `: ${said}`}`;
  return { type: 'failed', reason, why, undo: serves(former) ? change(fresh, wish.emptyImage) : undefined };
}

/** The target's image: `version` is the tag of the image that serves now. undefined: that one has a digest, and so no tag. */
export function imageOf(
  target: { readonly image?: string; readonly version?: string },
  serving: string,
): string | undefined {
  if (target.image !== undefined) return target.image;
  if (target.version === undefined || serving.includes('@')) return undefined;
  return `${serving.replace(/:[^:/]*$/, '')}:${target.version}`;
}

/** A strategic merge patch; with uid and resourceVersion it is refused when the Pod is another one or has changed since. */
export function patchOf(pod: V1Pod, { container, init, image }: ImageChange): object {
  const { uid, resourceVersion } = pod.metadata ?? {};
  const list = init ? 'initContainers' : 'containers';
  return { metadata: { uid, resourceVersion }, spec: { [list]: [{ name: container, image }] } };
}

function sideOf(pod: V1Pod, wish: Wish, slot: Slot, agents: AgentWords): Side | undefined {
  const name = `${wish.container}-${slot}`;
  const named = (one: { readonly name: string }) => one.name === name;
  const plain = pod.spec?.containers.find(named);
  // Of the init containers only a native sidecar runs on.
  const container = plain ?? pod.spec?.initContainers?.find((one) => named(one) && one.restartPolicy === 'Always');
  if (container?.image === undefined) return undefined;
  const init = plain === undefined;
  const statuses = init ? pod.status?.initContainerStatuses : pod.status?.containerStatuses;
  return {
    slot,
    name,
    init,
    image: container.image,
    empty: container.image === wish.emptyImage,
    status: statuses?.find(named),
    epochs: agents[slot]?.epochs,
  };
}

/** The kubelet runs what the Pod says: not the image of before the last change. */
function runs({ status, image }: Side): boolean {
  return status?.state?.running !== undefined && sameImage(status.image, image);
}

const alive = ({ state }: EpochStatus): boolean => state !== 'ended' && state !== 'crashed';
const serves = ({ epochs }: Side): boolean => epochs?.some(({ state }) => state === 'serving') ?? false;
const drains = ({ epochs }: Side): boolean => epochs?.some(({ state }) => state === 'draining') ?? false;

/** May it become Empty: by its agent's verdict, or because nothing of it runs. */
function over({ epochs, status, image }: Side): boolean {
  // A container that has ended took its Envoys along. One that the kubelet has not started yet may be about to take over.
  const state = status?.state;
  const ended =
    state?.terminated !== undefined || (state?.waiting !== undefined && status?.lastState?.terminated !== undefined);
  if (epochs === undefined) return ended && sameImage(status?.image ?? '', image);
  return epochs.every((epoch) => !alive(epoch) || (epoch.state === 'draining' && epoch.verdict?.safe === true));
}

/** A kubelet names an image in full, or by its digest alone. */
export function sameImage(said: string, wanted: string): boolean {
  if (/^sha256:/.test(said)) return true;
  return fullName(said) === fullName(wanted);
}

function fullName(image: string): string {
  const tagged = /[:@][^/]*$/.test(image) ? image : `${image}:latest`;
  const [first = '', ...more] = tagged.split('/');
  if (more.length === 0) return `docker.io/library/${tagged}`;
  return /[.:]|^localhost$/.test(first) ? tagged : `docker.io/${tagged}`;
}

function change({ name, init }: Side, image: string): ImageChange {
  return { container: name, init, image };
}

const wait = (started: boolean, why: string): PodStep => ({ type: 'wait', started, why });
const refuse = (reason: RefusedReason, why: string): PodStep => ({ type: 'refused', reason, why });
