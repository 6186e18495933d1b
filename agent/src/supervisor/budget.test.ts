import { expect, test } from 'vitest';
import { NO_CRASHES, onCrash, RESTART_BUDGET } from './budget.ts';

test('ten tries, each twice as late as the one before, then none', () => {
  let history = NO_CRASHES;
  const delays: number[] = [];
  for (let n = 0; n < 10; n++) {
    const decision = onCrash(history, 1_000_000 + n);
    if (!decision.relaunch) throw new Error('the budget ended early');
    delays.push(decision.delayMs);
    history = decision.history;
  }
  expect(delays).toEqual([200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 102400]);
  expect(onCrash(history, 1_000_010).relaunch).toBe(false);
});

test('a long quiet time restores the budget', () => {
  const worn = { crashes: 10, lastAt: 5 };
  const decision = onCrash(worn, 5 + RESTART_BUDGET.restoreAfterMs);
  expect(decision).toEqual({
    relaunch: true,
    delayMs: 200,
    history: { crashes: 1, lastAt: 5 + RESTART_BUDGET.restoreAfterMs },
  });
});
