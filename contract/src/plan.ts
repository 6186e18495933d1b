/**
 * What it means for the user that two epochs live at once, one line each: Envoy keeps circuit breakers, rate limits and
 * upstream connections per process, so each of them counts once per epoch until the old one has ended.
 */
export interface PlanNote {
  readonly about:
    | 'circuit-breakers'
    | 'rate-limits'
    | 'upstream-connections'
    | 'memory'
    | 'sessions'
    | 'drain'
    | 'method';
  /** `warn`: something may behave otherwise than the user configured it. */
  readonly level: 'info' | 'warn';
  readonly text: string;
}
