import type { Measured, Observed, RolloutAction, RolloutState } from './state.ts';

/**
 * What a rollout moves: plain proxies, a SidecarSet's Pods, Pods patched in place. Orders carry ids: one that is given
 * twice is one, also by another controller. A rejected order is given again by the planner.
 */
export interface Fleet {
  /**
   * The members that the spec selects, and what became of the order of each that is under way: `backId` of one that
   * is `flipping`, `upgradeId` of one that is `starting` or `draining`.
   */
  observe(state: RolloutState): Promise<readonly Observed[]>;
  carryOut(action: RolloutAction, state: RolloutState): Promise<void>;
}

/** What the agents can not know, such as a Prometheus. Asked each `everyMs` while a rollout progresses. */
export interface MetricsSource {
  readonly everyMs: number;
  /**
   * What became of the members that were begun, each since then; before the first one is begun, whether the members are known
   * at all. Throws METRICS_UNKNOWN for an answer that nothing can be judged by: then nothing new is begun.
   */
  measure(state: RolloutState, now: number, signal: AbortSignal): Promise<Measured>;
}
