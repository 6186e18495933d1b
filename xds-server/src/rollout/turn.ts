import { isRolloutOver, type RolloutMember, type RolloutPhase } from '@sluice/contract';
import type { Observed, RolloutAction, RolloutPlan, RolloutState } from './state.ts';

/** An order that nobody answers is given again, after this long at first. */
const RETRY_MS = 5_000;
const RETRY_MAX_MS = 60_000;
/** So often an order that nobody takes is given before it counts as refused: two and a quarter minutes. */
const MAX_ATTEMPTS = 5;

/** One step of the planner while it is being made. */
export class Turn {
  state: RolloutState;
  readonly now: number;
  readonly fleet: ReadonlyMap<string, Observed>;
  readonly #actions: RolloutAction[] = [];
  readonly #entries: RolloutPlan['entries'][number][] = [];
  #wakeAt: number | undefined;
  #owned: RolloutMember[] = [];
  #indexed: readonly RolloutMember[] | undefined;
  #positions: ReadonlyMap<string, number> = new Map();

  constructor(state: RolloutState, fleet: readonly Observed[], now: number) {
    this.state = state;
    this.now = now;
    this.fleet = new Map(fleet.map((one) => [one.name, one]));
  }

  set(patch: Partial<RolloutState>): void {
    this.state = { ...this.state, ...patch };
  }

  phase(phase: RolloutPhase, reason: string): void {
    if (phase === this.state.phase) return;
    this.set({ phase, reason, phaseSince: this.now });
    this.note('phase', `${phase}: ${reason}`);
  }

  /** Changes one member, in a copy that this step owns: a fleet of thousands is not copied for each of them. */
  member(name: string, patch: Partial<RolloutMember>): void {
    if (this.#owned !== this.state.members) {
      this.#owned = [...this.state.members];
      this.set({ members: this.#owned });
    }
    const at = this.#index().get(name);
    const one = at === undefined ? undefined : this.#owned[at];
    if (at === undefined || one === undefined) return;
    const moved = patch.state !== undefined && patch.state !== one.state ? { since: this.now } : {};
    this.#owned[at] = { ...one, ...moved, ...patch };
  }

  note(event: string, text: string, member?: string): void {
    this.#entries.push({ phase: this.state.phase, event, text, ...(member === undefined ? {} : { member }) });
  }

  /** Gives an order, or gives it again when its time has come: the same order has the same id. */
  order(action: RolloutAction): void {
    const attempts = this.#of(action.member)?.attempts ?? 0;
    const due = this.dueAt(action.member);
    if (this.now < due) {
      this.wake(due);
      return;
    }
    this.member(action.member, { sentAt: this.now, attempts: attempts + 1 });
    this.wake(this.dueAt(action.member));
    this.#actions.push(action);
  }

  /** Given so often without an answer that nobody will take it. */
  unheard(member: string): boolean {
    return (this.#of(member)?.attempts ?? 0) >= MAX_ATTEMPTS && this.now >= this.dueAt(member);
  }

  /** When an order that was given may be given again; 0: none was given. */
  dueAt(member: string): number {
    const { attempts = 0, sentAt = 0 } = this.#of(member) ?? {};
    return attempts === 0 ? 0 : sentAt + Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** (attempts - 1));
  }

  #of(name: string): RolloutMember | undefined {
    const at = this.#index().get(name);
    return at === undefined ? undefined : this.state.members[at];
  }

  /** Where each member is; made anew when one came or went. */
  #index(): ReadonlyMap<string, number> {
    const { members } = this.state;
    if (this.#indexed !== members) {
      this.#positions = new Map(members.map((one, n) => [one.name, n]));
      this.#indexed = members;
    }
    return this.#positions;
  }

  wake(at: number): void {
    this.#wakeAt = Math.min(at, this.#wakeAt ?? at);
  }

  newId(): string {
    this.set({ ordered: this.state.ordered + 1 });
    return `${this.state.id}-${this.state.ordered}`;
  }

  done(): RolloutPlan {
    const wake = this.#wakeAt === undefined || isRolloutOver(this.state.phase) ? {} : { wakeAt: this.#wakeAt };
    return { state: this.state, actions: this.#actions, entries: this.#entries, ...wake };
  }
}
