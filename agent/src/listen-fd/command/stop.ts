import { setTimeout as delay } from 'node:timers/promises';
import type { CommandContext } from './context.ts';
import type { CommandEpoch } from './epoch.ts';

const STOP_BOUND_MS = 10_000;
const STOP_FIRST_LOOK_MS = 5;
const STOP_LOOK_MS = 100;

/**
 * The stop signal, and then the kernel's word that its listeners are closed. One that does not obey within the bound
 * accepts on, beside its successor; its drain says so and is never safe until it has obeyed.
 */
export async function stopAccepting({ spec, log, signal }: CommandContext, epoch: CommandEpoch): Promise<void> {
  // One without connections ends at once: no crash.
  epoch.ending = true;
  epoch.group.signal(spec.stopSignal);
  const end = performance.now() + STOP_BOUND_MS;
  // The kernel has no event for a listener that closes; this lasts some milliseconds.
  for (let wait = STOP_FIRST_LOOK_MS; epoch.group.accepts(); wait = Math.min(2 * wait, STOP_LOOK_MS)) {
    if (performance.now() > end) {
      const { stopSignal } = spec;
      return log('warn', 'an old epoch accepts still after its stop signal', { epoch: epoch.number, stopSignal });
    }
    await delay(wait, undefined, { signal });
  }
}
