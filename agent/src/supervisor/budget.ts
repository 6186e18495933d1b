/** pilot-agent's keeper: 10 tries, 200 ms x 2^(n-1) between them; a long quiet time restores the budget. */
export interface RestartBudget {
  readonly tries: number;
  readonly firstDelayMs: number;
  readonly restoreAfterMs: number;
}

export const RESTART_BUDGET: RestartBudget = { tries: 10, firstDelayMs: 200, restoreAfterMs: 10 * 60_000 };

export interface CrashHistory {
  readonly crashes: number;
  readonly lastAt: number;
}

export const NO_CRASHES: CrashHistory = { crashes: 0, lastAt: 0 };

export type CrashDecision =
  | { readonly relaunch: true; readonly delayMs: number; readonly history: CrashHistory }
  | { readonly relaunch: false; readonly history: CrashHistory };

/**
 * What to do after a crash at `now` (ms): try n comes 200 ms x 2^(n-1) after the crash. Meanwhile connections wait in the
 * backlog of the kept listen sockets.
 */
export function onCrash(history: CrashHistory, now: number, budget: RestartBudget = RESTART_BUDGET): CrashDecision {
  const crashes = now - history.lastAt >= budget.restoreAfterMs ? 1 : history.crashes + 1;
  const next = { crashes, lastAt: now };
  if (crashes > budget.tries) return { relaunch: false, history: next };
  return { relaunch: true, delayMs: budget.firstDelayMs * 2 ** (crashes - 1), history: next };
}
