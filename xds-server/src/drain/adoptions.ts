import type { AgentMessage, DrainPolicy, EpochStatus, RecordEntry } from '@sluice/contract';
import type { Agents } from '../link/agents.ts';
import { adoptedUpgrade, handedOver } from './adopt.ts';
import type { UpgradeEvent, UpgradeState } from './state.ts';
import { Turns } from './turns.ts';

export interface AdoptionParts {
  readonly agents: Agents;
  /** For drains of that proxy that nobody asked this controller for. */
  readonly policy: (proxy: string) => DrainPolicy;
  readonly now: () => number;
  readonly newId: (now: number) => string;
  /** Whether an upgrade of this id is kept, over or not. */
  readonly stored: (id: string) => Promise<boolean>;
  /** Whether this drain needs no adoption: an upgrade under way has it, or it is another controller's. */
  readonly settled: (proxy: string, oldEpoch: number, id: string | undefined) => Promise<boolean>;
  readonly insert: (state: UpgradeState, first: Pick<RecordEntry, 'phase' | 'event' | 'text'>) => Promise<void>;
  readonly owner: (proxy: string, id: string, oldEpoch: number) => string | undefined;
  readonly event: (id: string, event: UpgradeEvent) => Promise<void>;
}

/**
 * Makes upgrades of what agents did without being asked: a drain that none knows of, a take-over between two slots. Without
 * it their old epochs would wait for a reset that nobody authorises.
 */
export class Adoptions {
  readonly #parts: AdoptionParts;
  readonly #turns = new Turns();

  constructor(parts: AdoptionParts) {
    this.#parts = parts;
  }

  /** A drain that an agent tells of: begun while no controller was there, or known to one whose state is lost. */
  async draining(proxy: string, slot: string, old: EpochStatus): Promise<void> {
    const { agents, now, newId, stored, policy } = this.#parts;
    await this.#once(proxy, old.epoch, old.upgradeId, async () => {
      const at = now();
      // Of another slot's epochs an older one may be listed still, whose agent is gone.
      const newest = agents.serving(proxy);
      const serving = newest !== undefined && newest.epoch > old.epoch ? newest : undefined;
      const taken = old.upgradeId === undefined || (await stored(old.upgradeId));
      const id = taken ? newId(at) : (old.upgradeId as string);
      return adoptedUpgrade({ id, proxy, slot, old, serving, policy: policy(proxy), now: at });
    });
  }

  /**
   * An agent took over from the one of the other slot by itself. Whichever of the two is heard first, there is one upgrade
   * of it, under the id that both know.
   */
  async handedOver(proxy: string, slot: string, told: Extract<AgentMessage, { type: 'serving' }>): Promise<void> {
    const { stored, policy, now, owner, event } = this.#parts;
    const { upgradeId, oldEpoch, oldSlot } = told;
    if (oldSlot === undefined) return;
    await this.#once(proxy, oldEpoch, upgradeId, async () => {
      if (await stored(upgradeId)) return undefined;
      const old = this.#old(proxy, oldSlot, oldEpoch);
      return handedOver({ proxy, slot, told: { ...told, oldSlot }, old, policy: policy(proxy), now: now() });
    });
    const id = owner(proxy, upgradeId, oldEpoch);
    if (id !== undefined) await event(id, told);
  }

  /** Resolves when this drain is not being taken over any more. */
  async settled(proxy: string, oldEpoch: number): Promise<void> {
    await this.#turns.run(JSON.stringify([proxy, oldEpoch]), async () => {});
  }

  /** One at a time for an old epoch: the second caller finds what the first has made. */
  #once(
    proxy: string,
    oldEpoch: number,
    upgradeId: string | undefined,
    make: () => Promise<UpgradeState | undefined>,
  ): Promise<void> {
    const { settled, insert, event } = this.#parts;
    return this.#turns.run(JSON.stringify([proxy, oldEpoch]), async () => {
      const state = (await settled(proxy, oldEpoch, upgradeId)) ? undefined : await make();
      if (state === undefined) return;
      await insert(state, { phase: 'Draining', event: 'adopted', text: state.reason });
      await event(state.id, { type: 'resumed' });
      const verdict = this.#old(proxy, state.oldSlot ?? '', oldEpoch)?.verdict;
      if (verdict !== undefined) await event(state.id, { type: 'verdict', epoch: oldEpoch, verdict });
    });
  }

  #old(proxy: string, slot: string, epoch: number): EpochStatus | undefined {
    return this.#parts.agents.entry(proxy, slot)?.epochs.find((one) => one.epoch === epoch);
  }
}
