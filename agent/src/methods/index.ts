import type { MethodName } from '@sluice/contract';
import { SluiceError } from '@sluice/contract';
import { hotRestart } from './hot-restart.ts';
import { reusePort } from './reuse-port/index.ts';
import type { HandoverMethod } from './types.ts';

export { chooseMethod } from './choose.ts';
export type * from './types.ts';

/** The ways from one Envoy to another one, the best first. */
export const ENVOY_METHODS: readonly HandoverMethod[] = [hotRestart, reusePort];

/** Throws INTERNAL for a method that is none between two Envoys. */
export function methodNamed(name: MethodName): HandoverMethod {
  const found = ENVOY_METHODS.find((method) => method.name === name);
  if (!found) throw new SluiceError('INTERNAL', `expected a handover method of Envoy, found ${name}`);
  return found;
}
