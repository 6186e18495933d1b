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
