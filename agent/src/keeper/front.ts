import type { AgentMessage } from '@sluice/contract';
import type { AnyEpoch } from '../epochs/live-epoch.ts';
import type { LiveEpochs } from '../epochs/live-epochs.ts';
import type { Standing } from '../handoff/standing.ts';
import type { Log } from '../log.ts';
import type { ResolvedConfig } from './config.ts';
import type { Exclusive } from './exclusive.ts';

/** What the keeper of any proxy has. */
export interface FrontContext<E extends AnyEpoch = AnyEpoch> {
  readonly config: ResolvedConfig;
  readonly registry: LiveEpochs<E>;
  /** One start of an epoch at a time. */
  readonly exclusive: Exclusive;
  readonly log: Log;
  /** The clock of the drains: see clock.ts. */
  readonly now: () => number;
  /** To the controller; kept while it is away, dropped when there is none. */
  readonly send: (message: AgentMessage) => void;
  /** The controller's word is needed for a reset; without one this agent decides alone. */
  readonly alone: boolean;
  /** Ends with the keeper. */
  readonly signal: AbortSignal;
  /** The event of each change of an epoch. */
  readonly standing: Pick<Standing, 'changed'>;
}

export function announceEpochs({ registry, config, send, standing }: FrontContext): void {
  send({ type: 'epochs', epochs: registry.statuses(config.slot) });
  standing.changed();
}
