import type { KeptSockets } from '../broker/index.ts';
import type { Epoch } from '../epochs/epoch.ts';
import type { Launch } from '../epochs/launch.ts';
import type { ProcessId } from '../epochs/proc.ts';
import type { EpochRegistry } from '../epochs/registry.ts';
import type { Standing } from '../handoff/standing.ts';
import type { DrainClock } from './clock.ts';
import type { FrontContext } from './front.ts';

export { announceEpochs } from './front.ts';

/** What the rooms of the keeper of Envoys share. */
export interface KeeperContext extends FrontContext<Epoch> {
  readonly registry: EpochRegistry;
  readonly kept: KeptSockets;
  /** `now`, and what Envoys tell by the wall clock on it. */
  readonly clock: DrainClock;
  /** Beside the agent of the other slot; also the event of each change of an epoch. */
  readonly standing: Standing;
  /** How the process of a new epoch comes to be, where it is not launched in the ordinary way. */
  readonly launch?: (envoy: Launch) => Promise<ProcessId>;
}
