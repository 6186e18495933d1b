import type { EpochState, EpochStatus, Verdict } from '@sluice/contract';

/** An epoch as its agent tells of it; with a verdict where `safe` is given. */
export const epochSaid = (state: EpochState, safe?: boolean): EpochStatus => ({
  epoch: 1,
  slot: '1',
  state,
  version: '1.40.0',
  pid: 1,
  startedAt: 0,
  ...(safe !== undefined && { verdict: { safe, protected: safe ? 0 : 1 } as Verdict }),
});
