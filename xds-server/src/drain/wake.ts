import type { Live } from './live.ts';
import { nextWake } from './machine.ts';
import type { Bounds } from './state.ts';

const MAX_TIMER_MS = 2_147_483_647;

/** Sets the upgrade's one timer for the machine's next own moment, and no sooner than in `leastMs`. */
export function wake(
  live: Live,
  {
    now,
    connected,
    bounds,
  }: { readonly now: number; readonly connected: ReadonlySet<string>; readonly bounds: Bounds },
  leastMs: number,
  tick: () => void,
): void {
  const at = nextWake(live.state, connected, bounds);
  if (at === undefined) return;
  live.timer = setTimeout(tick, Math.min(MAX_TIMER_MS, Math.max(leastMs, at - now)));
}
