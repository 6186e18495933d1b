import { setTimeout as delay } from 'node:timers/promises';
import { isTerminal, type RecordEntry, SluiceError, toSluiceError, type UpgradeView } from '@sluice/contract';
import { printUpgrade, recordLine } from '../view/upgrade.ts';
import type { ApiClient } from './api-client.ts';
import { EXIT, exitOf } from './failure.ts';
import { type Io, print } from './io.ts';
import type { Format } from './output.ts';
import { formatSpan } from './time.ts';

/**
 * Follows an upgrade to its end, one line for each step of its record, and through a controller that goes away meanwhile.
 * Resolves with the exit code: 0 when Done, the failure's own when not. Throws TIMEOUT; the upgrade goes on then.
 */
export async function followUpgrade(
  io: Io,
  api: ApiClient,
  upgrade: UpgradeView,
  options: { readonly timeout: number; readonly output: Format },
): Promise<number> {
  const interrupted = io.interrupted();
  const limit = AbortSignal.timeout(options.timeout);
  const quiet = options.output !== 'table' && options.output !== 'wide';
  let seen = 0;
  const tell = (entries: readonly RecordEntry[]): void => {
    for (const entry of entries.filter((e) => e.upgradeId === upgrade.id && e.seq > seen)) {
      seen = entry.seq;
      if (!quiet) print(io, recordLine(entry));
    }
  };
  const ended = await untilEnded(api, upgrade.id, tell, AbortSignal.any([interrupted, limit]), io).catch((thrown) => {
    if (!interrupted.aborted && !limit.aborted) throw thrown;
    return undefined;
  });
  if (ended === undefined) {
    if (interrupted.aborted) {
      io.err.write(`upgrade ${upgrade.id} goes on; follow it by: sluice get ${upgrade.proxy} -w\n`);
      return EXIT.interrupted;
    }
    const now = await api.upgrade(upgrade.id);
    throw new SluiceError(
      'TIMEOUT',
      `expected upgrade ${now.id} to end within ${formatSpan(options.timeout)}, found it ${now.phase}: ${now.reason}`,
    );
  }
  tell(ended.record ?? []);
  if (!(await printUpgrade(io, options.output, ended)))
    print(io, `upgrade ${ended.id}: ${ended.phase}: ${ended.reason}`);
  if (ended.phase === 'Done') return EXIT.ok;
  return exitOf(ended.failure?.code ?? 'EPOCH_DIED');
}

async function untilEnded(
  api: ApiClient,
  id: string,
  tell: (entries: readonly RecordEntry[]) => void,
  signal: AbortSignal,
  io: Io,
): Promise<UpgradeView> {
  for (let lost = 0; ; lost++) {
    try {
      for await (const item of api.watch(signal)) {
        if (item.kind === 'record') tell([item.record]);
        if (item.kind === 'upgrade' && item.upgrade.id === id && isTerminal(item.upgrade.phase))
          return await api.upgrade(id);
        if (item.kind === 'synced') {
          if (lost > 0) io.err.write('the controller is back\n');
          lost = 0;
          const now = await api.upgrade(id);
          tell(now.record ?? []);
          if (isTerminal(now.phase)) return now;
        }
      }
    } catch (thrown) {
      const error = toSluiceError(thrown);
      if (signal.aborted || error.code !== 'CONTROLLER_AWAY') throw thrown;
      if (lost === 0) io.err.write(`the controller is away; trying again (${error.message})\n`);
    }
    await delay(Math.min(3_000, 200 * 2 ** Math.min(lost, 10)), undefined, { signal });
  }
}
