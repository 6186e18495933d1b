import { setTimeout as delay } from 'node:timers/promises';
import { toSluiceError } from '@sluice/contract';
import { type CrashHistory, NO_CRASHES, onCrash } from '../../supervisor/budget.ts';
import { announce, type CommandContext } from './context.ts';
import type { CommandEpoch } from './epoch.ts';
import { startEpoch } from './start.ts';

/**
 * A serving epoch that ends unasked is started again on the held sockets: until then connections wait in their queues
 * instead of being refused. With a budget, as for Envoy (supervisor/budget.ts).
 */
export class Crashes {
  total = 0;
  exhausted = false;
  readonly #context: CommandContext;
  #history: CrashHistory = NO_CRASHES;

  constructor(context: CommandContext) {
    this.#context = context;
  }

  watch(epoch: CommandEpoch): void {
    void epoch.gone.then(() => this.#ended(epoch));
  }

  async #ended(epoch: CommandEpoch): Promise<void> {
    const { epochs, log, now, send, signal, exclusive, sockets } = this.#context;
    if (epoch.ending || epoch.meta.state !== 'serving' || signal.aborted) return;
    this.total++;
    epochs.remove(epoch);
    epoch.release();
    epoch.update({ state: 'crashed' });
    const { binary, config } = epoch.meta;
    for (;;) {
      const decision = onCrash(this.#history, now());
      this.#history = decision.history;
      if (!decision.relaunch || sockets.list.length === 0) {
        this.exhausted = true;
        log('error', 'crashed too often: not started again', { epoch: epoch.number });
        send({ type: 'crashed', epoch: epoch.number, at: now() });
        return announce(this.#context);
      }
      log('error', 'the serving epoch crashed', { epoch: epoch.number, log: epoch.folder.logTail() });
      try {
        await delay(decision.delayMs, undefined, { signal });
        const next = await exclusive.run(async () =>
          epochs.serving() ? undefined : startEpoch(this.#context, { binary, config }, signal),
        );
        if (next) this.watch(next);
        send({ type: 'crashed', epoch: epoch.number, at: now(), ...(next && { relaunchedAs: next.number }) });
        return announce(this.#context);
      } catch (thrown) {
        if (signal.aborted) return;
        const { code, message } = toSluiceError(thrown);
        log('error', 'could not be started again', { code, error: message });
      }
    }
  }
}
