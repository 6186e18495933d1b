import { setTimeout as delay } from 'node:timers/promises';
import { toSluiceError } from '@sluice/contract';
import { announceEpochs } from '../../keeper/front.ts';
import { type CrashHistory, NO_CRASHES, onCrash } from '../../supervisor/budget.ts';
import type { CommandContext } from './context.ts';
import type { CommandEpoch } from './epoch.ts';
import { startEpoch } from './start.ts';

/** As for Envoy: after so many crashes of an upgrade's epochs what served before it is started. */
const CRASHES_BEFORE_ROLLBACK = 2;

/**
 * A serving epoch that ends unasked is started again on the held sockets: until then connections wait in their queues
 * instead of being refused. With a budget, as for Envoy (supervisor/budget.ts).
 */
export class Crashes {
  total = 0;
  exhausted = false;
  readonly #context: CommandContext;
  #history: CrashHistory = NO_CRASHES;
  /** Crashes of epochs of one upgrade. */
  readonly #byUpgrade = new Map<string, number>();

  constructor(context: CommandContext) {
    this.#context = context;
  }

  watch(epoch: CommandEpoch): void {
    void epoch.gone.then(() => this.#ended(epoch));
  }

  async #ended(epoch: CommandEpoch): Promise<void> {
    const { registry, log, now, send, signal, sockets } = this.#context;
    if (epoch.ending || epoch.meta.state !== 'serving' || signal.aborted) return;
    this.total++;
    registry.remove(epoch);
    epoch.release();
    epoch.update({ state: 'crashed' });
    log('error', 'the serving epoch crashed', { epoch: epoch.number, log: epoch.folder.logTail() });
    send({ type: 'crashed', epoch: epoch.number, at: now() });
    announceEpochs(this.#context);
    for (;;) {
      const decision = onCrash(this.#history, now());
      this.#history = decision.history;
      if (!decision.relaunch) {
        this.exhausted = true;
        sockets.refuse(); // nobody will accept: refused at once is better than to wait in a queue
        log('error', 'crashed too often: not started again', { epoch: epoch.number });
        return;
      }
      try {
        await delay(decision.delayMs, undefined, { signal });
        return await this.#relaunch(epoch);
      } catch (thrown) {
        if (signal.aborted) return;
        const { code, message } = toSluiceError(thrown);
        log('error', 'could not be started again', { code, error: message });
      }
    }
  }

  async #relaunch(crashed: CommandEpoch): Promise<void> {
    const { registry, log, now, send, signal, exclusive } = this.#context;
    const { binary, config, createdBy, before, version } = crashed.meta;
    const crashes = (this.#byUpgrade.get(createdBy ?? '') ?? 0) + 1;
    if (createdBy !== undefined) this.#byUpgrade.set(createdBy, crashes);
    const back = createdBy !== undefined && before !== undefined && crashes >= CRASHES_BEFORE_ROLLBACK;
    const same = {
      binary,
      config,
      ...(createdBy !== undefined && { upgradeId: createdBy }),
      ...(before && { before }),
    };
    const next = await exclusive.run(async () =>
      registry.serving() ? undefined : startEpoch(this.#context, back ? before : same, signal),
    );
    if (!next) return; // an upgrade that was under way has put another one in its place
    this.watch(next);
    log('info', 'started again', { epoch: next.number, after: crashed.number, back });
    send({ type: 'crashed', epoch: crashed.number, at: now(), relaunchedAs: next.number });
    if (back) {
      const message = `expected ${binary} ${version} with ${config} to stay up, found it crashed ${crashes} times; what was before serves again`;
      send({
        type: 'failed',
        upgradeId: createdBy,
        code: 'SLUICE_EPOCH_DIED',
        message,
        servingEpoch: next.number,
        rolledBack: true,
      });
    }
    announceEpochs(this.#context);
  }
}
