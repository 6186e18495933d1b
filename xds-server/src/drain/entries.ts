import type { RecordEntry } from '@sluice/contract';
import type { Entry, UpgradeState } from './state.ts';

/** What a step notes as lines of the upgrade's record, the first of which has that number. */
export function recordOf(state: UpgradeState, seq: number, at: number, entries: readonly Entry[]): RecordEntry[] {
  return entries.map((one, n) => ({ upgradeId: state.id, proxy: state.proxy, seq: seq + n, at, ...one }));
}
