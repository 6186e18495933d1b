import { mkdirSync } from 'node:fs';
import { type EpochStatus, SluiceError, toSluiceError } from '@sluice/contract';
import { signal as signalProcess } from './epochs/proc.ts';
import type { EndReport } from './handoff/end-report.ts';
import { adopt } from './keeper/adopt.ts';
import { assemble } from './keeper/assemble.ts';
import { boot } from './keeper/boot.ts';
import { type KeeperConfig, resolveConfig } from './keeper/config.ts';
import { announceEpochs, type KeeperContext } from './keeper/context.ts';
import { keepListeners } from './keeper/kept.ts';
import { openPeer } from './keeper/peer.ts';
import type { Upgrades } from './keeper/upgrades.ts';
import { watchFiles } from './supervisor/file-watch.ts';
import { installSignals } from './supervisor/signals.ts';

export type { KeeperConfig } from './keeper/config.ts';

export interface Keeper {
  /** Settles when the keeper has ended: after SIGTERM's drain, with what that came to; SIGUSR2; or close(). */
  readonly done: Promise<EndReport | undefined>;
  epochs(): EpochStatus[];
  /** Ends the keeper and leaves its epochs running. */
  close(): Promise<void>;
}

/**
 * The keeper: adopts the epochs that an earlier one left, or starts the first; then serves orders, reports and signals
 * until it is told to end. Throws what kept the first epoch from serving.
 */
export async function startKeeper(given: KeeperConfig, options: { signals?: boolean } = {}): Promise<Keeper> {
  const config = resolveConfig(given);
  const { log } = config;
  mkdirSync(config.dir, { recursive: true, mode: 0o700 });

  const ended = Promise.withResolvers<EndReport | undefined>();
  const stop = new AbortController();
  const parts = await assemble(config, { signal: stop.signal, supervise: true });
  const { context, drains, upgrades, watch, ending } = parts;

  const close = async (report?: EndReport) => {
    if (stop.signal.aborted) return void (await ended.promise);
    stop.abort(new SluiceError('CONTROLLER_AWAY', 'the keeper ends'));
    undoSignals();
    files.close();
    clearInterval(sync);
    await Promise.all([parts.release(), peer?.close()]);
    ended.resolve(report);
  };

  let undoSignals = () => {};
  let peer: { close(): Promise<void> } | undefined;
  let files = { close() {} };
  let sync: NodeJS.Timeout | undefined;
  /** Told to end: what the start then throws is no failure. */
  let leaving = false;
  const leave = (report?: EndReport) => {
    leaving = true;
    return close(report);
  };
  const terminate = async () => {
    // Where nothing serves yet the start is given up, and the peer, if there is one, goes on.
    const nothing = context.registry.all().every((epoch) => epoch.meta.state === 'starting');
    if (nothing && !ending.begun) return leave();
    const report = await ending.terminate();
    if (report.end === 'held') await parts.statusPortGiven();
    await leave(report);
  };
  const hotRestart = (reason: string) => restart(context, upgrades, parts.link()?.connected ?? false, reason);
  try {
    // First of all: an agent that has no right to this slot must not start an Envoy, which would take connections.
    peer = await openPeer(context, drains);
    await adopt(context, drains, watch);
    if (options.signals !== false) {
      // Before the start: the first process of a container has no default action for a signal.
      const reopenLogs = () => {
        for (const epoch of context.registry.all()) signalProcess(epoch.process, 'SIGUSR1');
      };
      undoSignals = installSignals({ terminate, hotRestart, reopenLogs, leave: () => leave() }, log);
    }
    // As soon as an epoch serves here, for the peer may be told to end: never of one that stands by.
    void context.standing
      .until(() => context.registry.serving(), stop.signal)
      .then(() => parts.claimStatusPort())
      .catch(() => {});
    if (!context.registry.serving()) await boot(context, watch);
    stop.signal.throwIfAborted();
    parts.connect();
    announceEpochs(context);
    sync = setInterval(() => void syncKept(context), KEPT_SYNC_MS);
    files = watchFiles(
      [config.bootstrap, ...config.watch],
      (changed) => void hotRestart(`changed: ${changed.join(', ')}`),
    );
  } catch (thrown) {
    await close();
    if (!leaving) throw toSluiceError(thrown);
  }
  return { done: ended.promise, epochs: () => context.registry.statuses(config.slot), close: () => close() };
}

/** A listener that came or went without the controller's word (a file, another control plane) is noticed after this. */
const KEPT_SYNC_MS = 5_000;

async function syncKept(context: KeeperContext): Promise<void> {
  const serving = context.registry.serving();
  if (!serving || context.exclusive.busy) return;
  await context.exclusive.run(async () => {
    if (context.registry.serving() === serving) await keepListeners(context, serving);
  });
}

/** A hot restart that this agent wants: the controller's to run when it is there, else our own. Queued behind another. */
async function restart(context: KeeperContext, upgrades: Upgrades, linked: boolean, reason: string): Promise<void> {
  const serving = context.registry.serving();
  if (!serving) return;
  const target = { to: serving.meta.binary, bootstrap: context.config.bootstrap };
  if (linked) return context.send({ type: 'propose', target, reason });
  const upgradeId = `local-${context.now().toString(36)}-${Math.random().toString(36).slice(2, 6)}`;
  const checked = await upgrades.check(target);
  if (!checked.ok) {
    const found = checked.checks.filter((c) => !c.ok).map((c) => `${c.name}: ${c.found}`);
    context.log('error', 'hot restart refused; the serving epoch is untouched', { reason, found });
    return;
  }
  await upgrades.start({ upgradeId, target, policy: context.config.policy });
}
