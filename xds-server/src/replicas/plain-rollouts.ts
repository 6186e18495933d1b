import { type SluiceError, toSluiceError } from '@sluice/contract';
import type { Driver } from '../drain/driver.ts';
import { untilThere } from '../drain/persist.ts';
import type { Log } from '../log.ts';
import type { Rollouts } from '../rollout/index.ts';

export interface PlainRolloutsOptions {
  readonly make: () => Rollouts;
  readonly log: Log;
  /** What is said where another replica carries them out. */
  readonly elsewhere: () => SluiceError;
}

/** Rollouts over plain proxies: a controller that is alone carries them out all along, of several the leader in each of its terms. */
export class PlainRollouts {
  readonly #options: PlainRolloutsOptions;
  #current: Rollouts | undefined;
  #closing: Promise<void> = Promise.resolve();

  constructor(options: PlainRolloutsOptions) {
    this.#options = options;
  }

  /** Takes up what is not over, until the signal is aborted. Rejects when the store can not be read. */
  async start(signal: AbortSignal): Promise<void> {
    // Nobody would end what begins after the end of the term.
    if (signal.aborted) throw this.#options.elsewhere();
    const rollouts = this.#options.make();
    this.#current = rollouts;
    signal.addEventListener(
      'abort',
      () => {
        if (this.#current === rollouts) this.#current = undefined;
        this.#closing = rollouts.close();
      },
      { once: true },
    );
    await rollouts.start();
  }

  /** The same in a term of leading: a store that is away is waited for. */
  lead(signal: AbortSignal): void {
    const { log } = this.#options;
    untilThere(() => this.start(signal), log, signal).catch((thrown) => {
      if (!signal.aborted) log.error({ err: toSluiceError(thrown) }, 'rollouts could not be taken up');
    });
  }

  /** Throws NOT_LEADER. */
  require(): Rollouts {
    if (this.#current === undefined) throw this.#options.elsewhere();
    return this.#current;
  }

  get here(): Rollouts | undefined {
    return this.#current;
  }

  /** An Envoy of that proxy crashed, of that epoch: of the target's its rollout is told. */
  async crashed(proxy: string, epoch: number, driver: Pick<Driver, 'find'>): Promise<void> {
    const active = this.#current?.active() ?? [];
    for (const { upgradeId } of active.flatMap(({ members }) => members.filter(({ name }) => name === proxy))) {
      const upgrade = upgradeId === undefined ? undefined : await driver.find(upgradeId);
      // A fresh epoch after a crash has the next number; the old epoch is not the target's.
      if (upgrade?.epoch !== undefined && epoch >= upgrade.epoch) this.#current?.crashed(proxy, upgrade.id);
    }
  }

  changed(): void {
    this.#current?.changed();
  }

  async close(): Promise<void> {
    await Promise.all([this.#closing, this.#current?.close()]);
  }
}
