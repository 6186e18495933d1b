import {
  DEFAULT_ANALYSIS,
  DEFAULT_POLICY,
  DEFAULT_STRATEGY,
  type RolloutAnalysis,
  type RolloutSpec,
  type RolloutStrategy,
} from '@sluice/contract';

/** A rollout of all proxies to 1.40.0, with the defaults but for what is given. */
export function rolloutSpec(
  strategy: Partial<RolloutStrategy> = {},
  analysis: Partial<RolloutAnalysis> = {},
): RolloutSpec {
  return {
    selector: { proxies: ['*'], labels: {} },
    target: { to: '1.40.0' },
    policy: DEFAULT_POLICY,
    strategy: { ...DEFAULT_STRATEGY, ...strategy },
    analysis: { ...DEFAULT_ANALYSIS, ...analysis },
  };
}
