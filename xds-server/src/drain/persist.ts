import { type RecordEntry, SluiceError } from '@sluice/contract';
import { Backoff, pause } from '../kube/backoff.ts';
import type { Log } from '../log.ts';
import type { Store, Stored } from '../store/store.ts';
import type { UpgradeState } from './state.ts';

/** `lost`: somebody else wrote the upgrade meanwhile; what it is now, undefined when it is gone. */
export type Persisted =
  | { readonly type: 'stored'; readonly version: string }
  | { readonly type: 'lost'; readonly stored: Stored | undefined };

/** Stores one step. Waits for a store that is away: what an agent said once is not lost by it. */
export async function persist(
  store: Store,
  { state, version, entries }: { state: UpgradeState; version: string; entries: readonly RecordEntry[] },
  log: Log,
  signal: AbortSignal,
): Promise<Persisted> {
  try {
    const written = await untilThere(() => store.updateUpgrade(state, version, entries), log, signal);
    return { type: 'stored', version: written.version };
  } catch (thrown) {
    if (!(thrown instanceof SluiceError && thrown.code === 'UPGRADE_CONFLICT')) throw thrown;
    return { type: 'lost', stored: await untilThere(() => store.upgrade(state.id), log, signal) };
  }
}

/** The store could not be asked, and may be there again in a moment. */
export function isAway(thrown: unknown): thrown is SluiceError {
  return thrown instanceof SluiceError && (thrown.code === 'KUBE_AWAY' || thrown.code === 'STATE_AWAY');
}

/** Asks a store that is away again and again, until the signal is aborted. Rejects with whatever else is wrong. */
export async function untilThere<T>(ask: () => Promise<T>, log: Log, signal: AbortSignal): Promise<T> {
  const backoff = new Backoff(200, 5_000);
  for (;;) {
    try {
      return await ask();
    } catch (thrown) {
      if (!isAway(thrown) || signal.aborted) throw thrown;
      const waitMs = backoff.next();
      log.warn({ error: thrown.message, waitMs }, 'the state is away: again later');
      await pause(waitMs, signal);
      if (signal.aborted) throw thrown;
    }
  }
}
