export { Rollouts } from './driver.ts';
export type { Fleet, MetricsSource } from './fleet.ts';
export { PlainFleet } from './plain-fleet.ts';
export { plan } from './planner.ts';
export { type PrometheusOptions, PrometheusSource } from './prometheus.ts';
export { rolloutView } from './view.ts';
