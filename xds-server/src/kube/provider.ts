import type { V1LabelSelector, V1Pod } from '@kubernetes/client-node';
import type { EpochStatus } from '@sluice/contract';

/** What is to become of the pair of containers NAME-1 and NAME-2 of a Pod. */
export interface Wish {
  /** NAME. */
  readonly container: string;
  readonly emptyImage: string;
  readonly image: string;
}

export type Slot = '1' | '2';

/** What the agent of one slot says now; an agent that is not connected says nothing. */
export interface AgentWord {
  readonly epochs: readonly EpochStatus[];
}

export type AgentWords = { readonly [S in Slot]?: AgentWord | undefined };

/** Set the image of one container. */
export interface ImageChange {
  readonly container: string;
  /** A native sidecar stands among the init containers. */
  readonly init: boolean;
  readonly image: string;
}

export type PodStep =
  /** The target serves, the other container is Empty. */
  | { readonly type: 'done' }
  /** `started`: connections of the old one drain, or the new one starts. */
  | { readonly type: 'wait'; readonly started: boolean; readonly why: string }
  | {
      readonly type: 'upgrade' | 'reset' | 'undo';
      readonly change: ImageChange;
      readonly why: string;
    }
  /** This Pod can not be upgraded so; nothing of it is touched. */
  | { readonly type: 'refused'; readonly reason: RefusedReason; readonly why: string }
  /** The new container does not come up. `undo` makes it Empty again; absent where nobody else is known to serve. */
  | { readonly type: 'failed'; readonly reason: string; readonly why: string; readonly undo?: ImageChange | undefined }
  /** The Pod is ending, or has ended. */
  | { readonly type: 'gone' };

export type RefusedReason =
  | 'NoSuchContainers'
  | 'ForeignProxy'
  | 'NothingServes'
  /** In place: OpenKruise has the pair, and would make the new container Empty again. */
  | 'OwnedByKruise'
  /** OpenKruise: it did not give the Pod this pair. */
  | 'NotInjected'
  /** OpenKruise: more than the image of its SidecarSet has changed since the Pod was made, and of a Pod only images can be changed. */
  | 'NotUpgradable'
  /** OpenKruise: it takes the wrong container for the working one, and would make the one that serves Empty. */
  | 'WorkingContainer';

/** What holds for all Pods of an upgrade at once. */
export interface FleetWish {
  readonly namespace: string;
  /** The Pods of the HotUpgrade. */
  readonly selector: V1LabelSelector;
  readonly container: string;
  /** The target's image. */
  readonly image: string;
  /** The rollout goes back: who gets a turn gets the image that was there before. */
  readonly back: boolean;
  readonly paused: boolean;
  /** Pods at once, a number. */
  readonly maxUnavailable: number;
  /** A Pod counts as one of them until its new epoch serves, or until its old ones have ended. */
  readonly until: 'serving' | 'reset';
  /** The rollout has ended, and so many of its Pods keep the image that they have. undefined: it is under way. */
  readonly kept?: number | undefined;
}

export type SetRefusedReason =
  | 'NoSidecarSet'
  | 'NoSuchContainer'
  | 'NotHotUpgrade'
  | 'NotRollingUpdate'
  | 'OtherPods'
  | 'OtherSelector'
  | 'EmptyIsTarget'
  | 'NoImageBefore';

export type Prepared =
  /** `image`: what a Pod gets when its turn comes; `emptyImage`: for its wish. */
  | { readonly type: 'ready'; readonly image: string; readonly emptyImage: string }
  /** Nothing was touched. */
  | { readonly type: 'refused'; readonly reason: SetRefusedReason; readonly why: string };

/** Carries Pods from one image to another. Both ways are one `step`, called whenever the Pod or an agent's word changes. */
export interface Provider {
  readonly name: 'InPlace' | 'OpenKruise';
  /**
   * Only of a provider that has something to set for all Pods: called before the first step, whenever a part of the wish changes,
   * and once with `kept` when the rollout has ended. Again with the same wish is nothing. Rejects with KubeError; Conflict = again.
   */
  prepare?(wish: FleetWish, signal?: AbortSignal): Promise<Prepared>;
  /** The next step as `step` would decide it; nothing is done. */
  decide(pod: V1Pod, wish: Wish, agents: AgentWords): PodStep;
  /** Decides and does the next thing. Rejects with KubeError; Conflict = the Pod changed meanwhile, step again on the new one. */
  step(pod: V1Pod, wish: Wish, agents: AgentWords, options: StepOptions): Promise<PodStep>;
}

export interface StepOptions {
  /** May a Pod be begun: false for one that waits its turn, or when the rollout is paused. What has begun goes on. */
  readonly begin: boolean;
  /** A new container that failed becomes Empty again; the wish has to change with it, or it is tried anew. */
  readonly undo: boolean;
  readonly signal?: AbortSignal | undefined;
}
