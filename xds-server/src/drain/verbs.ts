import { SluiceError } from '@sluice/contract';
import type { UpgradeEvent, UpgradeState, UpgradeWish } from './state.ts';

/** What the verbs need of the upgrades: the driver has it. */
export interface Upgrades {
  find(id: string): Promise<UpgradeState | undefined>;
  create(wish: UpgradeWish): Promise<UpgradeState>;
  event(id: string, event: UpgradeEvent): Promise<void>;
}

/**
 * What operators may ask of an upgrade under way. Each may be repeated and answers with the upgrade's state afterwards; it
 * rejects with UPGRADE_UNKNOWN, or with PHASE_REFUSED where the upgrade's phase does not allow it.
 */
export class Verbs {
  readonly #upgrades: Upgrades;
  /** Rollbacks that are being asked for, by upgrade: who asks meanwhile gets the same. */
  readonly #rollbacks = new Map<string, Promise<UpgradeState>>();

  constructor(upgrades: Upgrades) {
    this.#upgrades = upgrades;
  }

  /** Gives up an upgrade whose new epoch does not serve yet. */
  async abort(id: string, by: string): Promise<UpgradeState> {
    const { phase } = await this.#require(id);
    if (!['Idle', 'Preflight', 'Starting', 'Failed'].includes(phase)) {
      throw new SluiceError('PHASE_REFUSED', `upgrade ${id} is ${phase}: its new epoch serves already`, {
        hint: 'use rollback to flip back',
      });
    }
    await this.#upgrades.event(id, { type: 'abort', by });
    return this.#require(id);
  }

  /** A reset with protected connections left. */
  async override(id: string, by: string, reason: string): Promise<UpgradeState> {
    const { phase } = await this.#require(id);
    if (!['Draining', 'SafeToReset', 'Resetting'].includes(phase)) {
      throw new SluiceError('PHASE_REFUSED', `upgrade ${id} is ${phase}: a reset is possible from Draining on`);
    }
    await this.#upgrades.event(id, { type: 'override', by, reason });
    return this.#require(id);
  }

  /**
   * A flip back of an upgrade whose new epoch serves: answers with the upgrade that flips back. Of one that is over there is
   * a second flip back only where `backId` says what it is to be called.
   */
  async rollback(id: string, by: string, backId?: string): Promise<UpgradeState> {
    const running = this.#rollbacks.get(id) ?? this.#rollback(id, by, backId).finally(() => this.#rollbacks.delete(id));
    this.#rollbacks.set(id, running);
    return running;
  }

  async #rollback(id: string, by: string, backId: string | undefined): Promise<UpgradeState> {
    const state = await this.#require(id);
    const known = backId === undefined ? undefined : await this.#upgrades.find(backId);
    if (known !== undefined) return known;
    if (state.rollbackId !== undefined) return this.#require(state.rollbackId);
    if (state.phase === 'Idle' || state.phase === 'Preflight' || state.phase === 'Starting') {
      await this.#upgrades.event(id, { type: 'abort', by });
      return this.#require(id);
    }
    if (state.from === undefined || state.epoch === undefined || state.phase === 'Failed') {
      throw new SluiceError('PHASE_REFUSED', `upgrade ${id} is ${state.phase}: there is nothing to flip back`);
    }
    const back = await this.#upgrades.create({
      id: backId,
      proxy: state.proxy,
      // An agent that does not tell its paths has to know the version by name.
      target: state.fromTarget ?? { to: state.from },
      policy: state.policy,
      slot: state.slot,
      rollbackOf: id,
      reason: `rollback of ${id} by ${by}`,
    });
    await this.#upgrades.event(id, { type: 'rollback', rollbackId: back.id });
    return back;
  }

  async #require(id: string): Promise<UpgradeState> {
    const state = await this.#upgrades.find(id);
    if (state === undefined) throw new SluiceError('UPGRADE_UNKNOWN', `expected a known upgrade, found ${id}`);
    return state;
  }
}
