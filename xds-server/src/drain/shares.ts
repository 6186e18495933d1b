import { isTerminal } from '@sluice/contract';
import { firstShare, fleetDrains, fleetShares } from './fleet.ts';
import type { UpgradeState } from './state.ts';

const SHARE_EVERY_MS = 1_000;

/** Shares a fleet's rate among the drains that go on at once: those of this controller, and those that others run. */
export class Shares {
  readonly #active: () => readonly UpgradeState[];
  readonly #give: (id: string, perSecond: number) => void;
  readonly #others = new Map<string, UpgradeState>();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(active: () => readonly UpgradeState[], give: (id: string, perSecond: number) => void) {
    this.#active = active;
    this.#give = give;
  }

  /** An upgrade as it is stored. Of those that others run only that they drain is known: what they have left is not stored. */
  noticed({ verdict: _, ...state }: UpgradeState, isOthers: boolean): void {
    if (isOthers && !isTerminal(state.phase)) this.#others.set(state.id, state);
    else this.#others.delete(state.id);
  }

  forget(proxy: string): void {
    for (const [id, state] of this.#others) if (state.proxy === proxy) this.#others.delete(id);
  }

  first(state: UpgradeState): number | undefined {
    return firstShare(this.#drains(), state);
  }

  /** Anew, at most once a second. */
  soon(): void {
    if (this.#closed) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      for (const [id, perSecond] of fleetShares(this.#drains())) this.#give(id, perSecond);
    }, SHARE_EVERY_MS);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  #drains() {
    const own = this.#active();
    const ours = new Set(own.map(({ id }) => id));
    return fleetDrains([...own, ...[...this.#others.values()].filter(({ id }) => !ours.has(id))]);
  }
}
