import type { V1Pod } from '@kubernetes/client-node';
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

export type RefusedReason = 'NoSuchContainers' | 'ForeignProxy' | 'NothingServes';

/** Carries Pods from one image to another. Both ways are one `step`, called whenever the Pod or an agent's word changes. */
export interface Provider {
  readonly name: 'InPlace' | 'OpenKruise';
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
