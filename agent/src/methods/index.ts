import { hotRestart } from './hot-restart.ts';
import { reusePort } from './reuse-port/index.ts';
import type { HandoverMethod } from './types.ts';

export { chooseMethod, methodNamed } from './choose.ts';
export type * from './types.ts';

/** The ways from one Envoy to another one, the best first. */
export const ENVOY_METHODS: readonly HandoverMethod[] = [hotRestart, reusePort];
