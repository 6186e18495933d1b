import type { AgentMessage } from '@sluice/contract';
import type { ResolvedConfig } from '../../keeper/config.ts';
import type { Exclusive } from '../../keeper/exclusive.ts';
import type { Log } from '../../log.ts';
import type { CommandEpoch } from './epoch.ts';
import type { HeldSockets } from './sockets.ts';
import type { ResolvedSpec } from './spec.ts';

/** What the parts of this front end share. */
export interface CommandContext {
  readonly config: ResolvedConfig;
  readonly spec: ResolvedSpec;
  readonly epochs: CommandEpochs;
  readonly exclusive: Exclusive;
  readonly log: Log;
  readonly now: () => number;
  readonly send: (message: AgentMessage) => void;
  /** No controller: this agent decides alone. */
  readonly alone: boolean;
  readonly signal: AbortSignal;
  /** Set before the first epoch is started. */
  sockets: HeldSockets;
}

/** The live epochs, by number. */
export class CommandEpochs {
  readonly #epochs = new Map<number, CommandEpoch>();

  add(epoch: CommandEpoch): void {
    this.#epochs.set(epoch.number, epoch);
  }
  remove(epoch: CommandEpoch): void {
    if (this.#epochs.get(epoch.number) === epoch) this.#epochs.delete(epoch.number);
  }
  get(number: number): CommandEpoch | undefined {
    return this.#epochs.get(number);
  }
  all(): CommandEpoch[] {
    return [...this.#epochs.values()].sort((a, b) => a.number - b.number);
  }
  serving(): CommandEpoch | undefined {
    return this.all().findLast(({ meta }) => meta.state === 'serving');
  }
  draining(): CommandEpoch[] {
    return this.all().filter(({ meta }) => meta.state === 'draining');
  }
}

export function announce({ epochs, config, send }: CommandContext): void {
  send({ type: 'epochs', epochs: epochs.all().map((epoch) => epoch.status(config.slot)) });
}
