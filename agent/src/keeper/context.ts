import type { AgentMessage } from '@sluice/contract';
import type { KeptSockets } from '../broker/index.ts';
import type { Launch } from '../epochs/launch.ts';
import type { ProcessId } from '../epochs/proc.ts';
import type { EpochRegistry } from '../epochs/registry.ts';
import type { Standing } from '../handoff/standing.ts';
import type { Log } from '../log.ts';
import type { ResolvedConfig } from './config.ts';
import type { Exclusive } from './exclusive.ts';

/** What the rooms of the keeper share. */
export interface KeeperContext {
  readonly config: ResolvedConfig;
  readonly registry: EpochRegistry;
  readonly kept: KeptSockets;
  /** Beside the agent of the other slot; also the event of each change of an epoch. */
  readonly standing: Standing;
  /** One start of an epoch at a time. */
  readonly exclusive: Exclusive;
  readonly log: Log;
  readonly now: () => number;
  /** To the controller; kept while it is away, dropped when there is none. */
  readonly send: (message: AgentMessage) => void;
  /** The controller's word is needed for a reset; without one this agent decides alone. */
  readonly alone: boolean;
  /** How the process of a new epoch comes to be, where it is not launched in the ordinary way. */
  readonly launch?: (envoy: Launch) => Promise<ProcessId>;
  /** Ends with the keeper. */
  readonly signal: AbortSignal;
}

export function announceEpochs(context: KeeperContext): void {
  context.send({ type: 'epochs', epochs: context.registry.statuses(context.config.slot) });
  context.standing.changed();
}
