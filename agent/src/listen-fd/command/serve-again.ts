import { setTimeout as delay } from 'node:timers/promises';
import { toSluiceError } from '@sluice/contract';
import { NO_CRASHES, onCrash } from '../../supervisor/budget.ts';
import type { CommandContext } from './context.ts';

/**
 * For a transfer that failed when the serving epoch had been told to stop, which nothing takes back: `start` is tried
 * until another one serves, as after a crash, for nobody accepts meanwhile. Throws when the budget is used up.
 */
export async function serveAgain(
  { log, now, signal }: Pick<CommandContext, 'log' | 'now' | 'signal'>,
  start: () => Promise<void>,
  wait: (ms: number) => Promise<unknown> = (ms) => delay(ms, undefined, { signal }),
): Promise<void> {
  for (let history = NO_CRASHES; ; ) {
    try {
      return await start();
    } catch (thrown) {
      signal.throwIfAborted();
      const decision = onCrash(history, now());
      history = decision.history;
      if (!decision.relaunch) throw thrown;
      const { code, message } = toSluiceError(thrown);
      log('error', 'could not be started again', { code, error: message });
      await wait(decision.delayMs);
    }
  }
}
