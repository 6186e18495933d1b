import { setTimeout as delay } from 'node:timers/promises';
import { isRolloutOver, type RolloutEntry, type RolloutView, SluiceError, toSluiceError } from '@sluice/contract';
import { entryLine, rolloutLines } from '../view/rollout.ts';
import { Screen } from '../view/screen.ts';
import type { ApiClient } from './api-client.ts';
import { EXIT, exitOf } from './failure.ts';
import { type Io, print } from './io.ts';
import { formatSpan } from './time.ts';

/**
 * Follows a rollout to its end: a live tree on a terminal, one line for each step without one; through a controller that
 * goes away meanwhile. Resolves with the exit code: 0 when it ended as it was asked to. Throws TIMEOUT; it goes on then.
 */
export async function followRollout(
  io: Io,
  api: ApiClient,
  id: string,
  options: { readonly timeout: number; readonly quiet: boolean; readonly wanted: 'Done' | 'RolledBack' | 'Aborted' },
): Promise<number> {
  const interrupted = io.interrupted();
  const limit = AbortSignal.timeout(options.timeout);
  const signal = AbortSignal.any([interrupted, limit]);
  const screen = !options.quiet && io.out.isTTY === true ? new Screen(io) : undefined;
  let seen = -1;
  const entries = (all: readonly RolloutEntry[]): void => {
    for (const one of all.filter((entry) => entry.rolloutId === id && entry.seq > seen)) {
      seen = one.seq;
      if (!options.quiet && screen === undefined) print(io, entryLine(one));
    }
  };
  const show = (view: RolloutView): void => screen?.draw(rolloutLines(view, Date.now()));
  for (let lost = 0; ; lost++) {
    try {
      for await (const item of api.watch(signal)) {
        if (item.kind === 'rolloutRecord') entries([item.entry]);
        const due = item.kind === 'synced' || (item.kind === 'rollout' && item.rollout.id === id);
        if (item.kind === 'rollout' && item.rollout.id === id) show(item.rollout);
        if (!due || (item.kind === 'rollout' && !isRolloutOver(item.rollout.phase))) continue;
        lost = 0;
        const now = await api.rollout(id);
        entries(now.record ?? []);
        show(now);
        if (isRolloutOver(now.phase)) return ended(io, now, options);
      }
    } catch (thrown) {
      if (interrupted.aborted) {
        io.err.write(`rollout ${id} goes on; see it by: sluice rollout get ${id}\n`);
        return EXIT.interrupted;
      }
      if (limit.aborted) throw await late(api, id, options.timeout);
      const error = toSluiceError(thrown);
      if (error.code !== 'CONTROLLER_AWAY') throw thrown;
      if (lost === 0) io.err.write(`the controller is away; trying again (${error.message})\n`);
    }
    await delay(Math.min(3_000, 200 * 2 ** Math.min(lost, 10)), undefined, { signal }).catch(() => undefined);
  }
}

function ended(io: Io, view: RolloutView, options: { readonly quiet: boolean; readonly wanted: string }): number {
  if (!options.quiet) print(io, `rollout ${view.id}: ${view.phase}: ${view.reason}`);
  return view.phase === options.wanted ? EXIT.ok : exitOf('ROLLOUT_FAILED');
}

async function late(api: ApiClient, id: string, timeout: number): Promise<SluiceError> {
  const now = await api.rollout(id);
  return new SluiceError(
    'TIMEOUT',
    `expected rollout ${id} to end within ${formatSpan(timeout)}, found it ${now.phase}: ${now.reason}`,
  );
}
