import { isTerminal, type Phase } from '@sluice/contract';
import type { Command, Entry, Step, Surroundings, UpgradeState } from './state.ts';

/** One step of the machine while it is being made: collects the new state, the commands and the record. */
export class Turn {
  state: UpgradeState;
  readonly around: Surroundings;
  readonly #commands: Command[] = [];
  readonly #entries: Entry[] = [];

  constructor(state: UpgradeState, around: Surroundings) {
    this.state = state;
    this.around = around;
  }

  set(patch: Partial<UpgradeState>): void {
    this.state = { ...this.state, ...patch };
  }

  /** Moves to a phase. A terminal phase is never left. */
  phase(phase: Phase, reason: string): void {
    if (isTerminal(this.state.phase)) return;
    this.set({ phase, reason, phaseSince: this.around.now, attempts: 0 });
    this.note('phase', `${phase}: ${reason}`);
  }

  note(event: string, text: string): void {
    this.#entries.push({ phase: this.state.phase, event, text });
  }

  command(command: Command): void {
    this.#commands.push(command);
  }

  /** Remembers that the phase's command was sent, so that a retry backs off. */
  sent(): void {
    this.set({ sentAt: this.around.now, attempts: this.state.attempts + 1 });
  }

  done(): Step {
    return { state: this.state, commands: this.#commands, entries: this.#entries };
  }
}
