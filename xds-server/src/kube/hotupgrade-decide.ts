/**
 * What a HotUpgrade asks of its rollout, as a pure function. The rollout is the planner's; here is decided only when there is one.
 *
 *   no rollout --a Pod is there--> create            paused, a problem, an old CRD: it is not begun
 *   running    --strategy, analysis, policy--> spec   --paused--> pause (also with a problem), resume
 *              --another target--> abort (what has begun comes to its end) --over--> create the next one
 *   Done       --partition, new Pods--> spec: it goes on
 *   RolledBack, Aborted, Failed: stays so until there is another target
 *   deleted    --> abort --over, no Pod between two images--> release: the finalizer goes
 */
import { isDeepStrictEqual } from 'node:util';
import { isRolloutOver, type RolloutSpec } from '@sluice/contract';
import type { RolloutEvent, RolloutState } from '../rollout/state.ts';

export const PAUSED_BY = 'spec.strategy.paused';

export interface Situation {
  /** undefined: it can not be carried out as it is; what runs goes on as it was. */
  readonly spec: RolloutSpec | undefined;
  readonly paused: boolean;
  readonly deleting: boolean;
  /** Its newest rollout. */
  readonly state: RolloutState | undefined;
  /** Pods that can have a part in it. */
  readonly total: number;
  /** Pods that have not had a turn and do not have the target. */
  readonly outdated: number;
  /** So many of them may stay as they are. */
  readonly kept: number;
  /** Pods between two images. */
  readonly between: number;
  /** It ended otherwise than well, as its status says: a store that was lost does not make it begin anew. */
  readonly endedBadly: boolean;
}

export type Decision =
  | { readonly type: 'nothing' }
  | { readonly type: 'create'; readonly spec: RolloutSpec }
  | { readonly type: 'event'; readonly event: RolloutEvent }
  | { readonly type: 'release' };

const NOTHING: Decision = { type: 'nothing' };
const event = (one: RolloutEvent): Decision => ({ type: 'event', event: one });

export function decideHotUpgrade(now: Situation): Decision {
  const { spec, state, paused, deleting, total } = now;
  if (deleting) {
    if (state !== undefined && !isRolloutOver(state.phase)) return ended(state, 'the HotUpgrade is deleted');
    return now.between === 0 ? { type: 'release' } : NOTHING;
  }
  // What runs goes on as it was, but can be stopped.
  if (spec === undefined) return paused && canPause(state) ? event({ type: 'pause', by: PAUSED_BY }) : NOTHING;
  const create: Decision = total > 0 && !paused ? { type: 'create', spec } : NOTHING;
  if (state === undefined) return now.endedBadly ? NOTHING : create;
  if (!isDeepStrictEqual(state.spec.pods?.target, spec.pods?.target)) {
    return isRolloutOver(state.phase) ? create : ended(state, `the target is ${spec.target.to} now`);
  }
  const changed = !isDeepStrictEqual(state.spec, spec);
  if (state.phase === 'Done')
    return changed || (now.outdated > now.kept && !paused) ? event({ type: 'spec', spec }) : NOTHING;
  if (isRolloutOver(state.phase)) return NOTHING;
  if (changed) return event({ type: 'spec', spec });
  if (state.phase !== 'Progressing' && state.phase !== 'Paused') return NOTHING;
  const { pause } = state;
  if (paused && canPause(state)) return event({ type: 'pause', by: PAUSED_BY });
  // What a person paused by the API is not resumed by a field that never said so.
  if (!paused && pause?.by === 'user' && pause.reason === `by ${PAUSED_BY}`)
    return event({ type: 'resume', by: PAUSED_BY });
  return NOTHING;
}

function canPause(state: RolloutState | undefined): boolean {
  return (state?.phase === 'Progressing' || state?.phase === 'Paused') && state.pause?.by !== 'user';
}

/** What has begun comes to its end; a flip back that is under way is no less an end. */
function ended({ phase }: RolloutState, why: string): Decision {
  return phase === 'Progressing' || phase === 'Paused' ? event({ type: 'abort', by: why }) : NOTHING;
}
