import { isTerminal } from '@sluice/contract';
import type { UpgradeEvent, UpgradeState } from './state.ts';

/** An upgrade that this controller runs. */
export interface Live {
  state: UpgradeState;
  version: string;
  /** All that were written or read here. */
  readonly versions: Set<string>;
  seq: number;
  /** Events of one upgrade are handled one after the other. */
  queue: Promise<void>;
  timer?: NodeJS.Timeout;
  /** The newest verdict that waits for its turn: of several only the last is news. */
  verdict?: Extract<UpgradeEvent, { type: 'verdict' }> | undefined;
  /** Aborted: this controller has let it go. */
  readonly gone: AbortController;
}

/** Under way, oldest first. */
export function activeOf(all: Iterable<Live>, proxy: string | undefined): UpgradeState[] {
  return [...all]
    .map((one) => one.state)
    .filter((state) => !isTerminal(state.phase) && (proxy === undefined || state.proxy === proxy))
    .sort((a, b) => a.createdAt - b.createdAt);
}

/** The upgrade of a proxy that has this id, or else this old epoch. */
export function ownerOf(
  all: ReadonlyMap<string, Live>,
  proxy: string,
  upgradeId: string,
  oldEpoch: number | undefined,
): string | undefined {
  if (all.get(upgradeId)?.state.proxy === proxy) return upgradeId;
  if (oldEpoch === undefined) return undefined;
  // An agent that was restarted may not know the upgrade's id; the epoch tells it, for no number is used twice.
  const live = [...all.values()].find(({ state }) => state.proxy === proxy && state.oldEpoch === oldEpoch);
  return live?.state.id;
}
