import { mkdirSync } from 'node:fs';
import { type AgentMessage, type EpochStatus, SluiceError, toSluiceError } from '@sluice/contract';
import { Standing } from '../../handoff/standing.ts';
import { drainClock } from '../../keeper/clock.ts';
import { type KeeperConfig, resolveBinary, resolveConfig } from '../../keeper/config.ts';
import { Exclusive } from '../../keeper/exclusive.ts';
import { announceEpochs } from '../../keeper/front.ts';
import { helloOf } from '../../keeper/hello.ts';
import { createLink } from '../../link/index.ts';
import { letGoFirst } from '../../native/sched.ts';
import { installSignals } from '../../supervisor/signals.ts';
import { type Giving, offerListeners } from '../give.ts';
import { adopt } from './adopt.ts';
import { commandHandler } from './commands.ts';
import { type CommandContext, CommandRegistry } from './context.ts';
import { Crashes } from './crashes.ts';
import { Drains } from './drains.ts';
import { serveAgain } from './serve-again.ts';
import { HeldSockets } from './sockets.ts';
import { type CommandSpec, resolveSpec } from './spec.ts';
import { startEpoch } from './start.ts';
import { openStatus } from './status.ts';
import { stopAccepting } from './stop.ts';
import { Upgrades } from './upgrades.ts';

export type { CommandSpec } from './spec.ts';

export interface CommandKeeper {
  /** Settles when it has ended: after SIGTERM's drain, SIGUSR2, close(), or when a successor took the sockets and all is drained. */
  readonly done: Promise<void>;
  epochs(): EpochStatus[];
  /** Ends it and leaves its epochs running. */
  close(): Promise<void>;
}

/**
 * The front end for a proxy that is not Envoy: method `listen-fd`. It holds the listen sockets; each epoch inherits them.
 * The same run folder, status, messages and verdict as the keeper of Envoys, with the kernel as the only witness, and
 * without what only an Envoy has (filter, admin, xDS).
 *
 *   boot     adopt what runs > else take the sockets over (sluice-fd/1), or bind them > start > READY=1
 *   upgrade  check > start B on the same sockets > READY=1 > stop signal to A > A's listeners closed > A drains
 *              \ B dies, or is not ready in time: B killed, A accepts, nothing was touched
 *   drain    the kernel counts A's sockets > none left > end signal > done
 *   crash    start again on the held sockets
 *   give     a successor takes the sockets (sluice-fd/1): the serving epoch stops accepting, drains, and this agent ends
 *
 * `config.envoy` is the proxy's binary and `config.bootstrap` its configuration file.
 */
export async function startCommandKeeper(
  given: KeeperConfig,
  command: CommandSpec | object,
  options: { readonly signals?: boolean } = {},
): Promise<CommandKeeper> {
  const config = resolveConfig(given);
  const spec = resolveSpec(command);
  const { log } = config;
  mkdirSync(config.dir, { recursive: true, mode: 0o700 });
  letGoFirst(process.pid);
  const stop = new AbortController();
  const ended = Promise.withResolvers<void>();
  const outbox: { send: (message: AgentMessage) => void } = { send: () => {} };
  const standing = new Standing();
  const registry = new CommandRegistry(config.dir);
  const context: CommandContext = {
    config,
    spec,
    registry,
    standing,
    exclusive: new Exclusive(() => standing.changed()),
    log,
    now: drainClock(() => registry.all().some((epoch) => epoch.drain !== undefined)).now,
    send: (message) => outbox.send(message),
    alone: config.controllers.length === 0,
    signal: stop.signal,
    sockets: HeldSockets.none(),
  };
  const drains = new Drains(context);
  const crashes = new Crashes(context);
  const upgrades = new Upgrades(context, drains, (epoch) => crashes.watch(epoch));
  let link: ReturnType<typeof createLink> | undefined;
  let giving: Giving | undefined;
  let undoSignals = () => {};
  const status = await openStatus(context, { upgrades, drains, crashes, link: () => link ?? { connected: false } });

  const close = async (): Promise<void> => {
    if (stop.signal.aborted) return ended.promise;
    stop.abort(new SluiceError('CONTROLLER_AWAY', 'the agent ends'));
    undoSignals();
    drains.stop();
    for (const epoch of registry.all()) epoch.release();
    await giving?.close();
    context.sockets.close();
    link?.close();
    await status.close();
    ended.resolve();
  };

  /** No successor, or it has the sockets: every epoch ends by its verdict, or at the bound; then this agent. */
  const drainAll = async (upgradeId: string): Promise<void> => {
    for (const epoch of registry.all()) drains.begin(epoch, upgradeId, config.policy, true);
    const deadline = Date.now() + config.terminationDrainMs;
    await Promise.all(
      registry.all().map(async (epoch) => {
        const safe = await epoch.drain?.untilSafe(deadline - Date.now());
        const id = epoch.meta.endedBy ?? upgradeId;
        if (safe) return drains.reset(id, epoch.number);
        const why = `not drained within ${config.terminationDrainMs} ms`;
        return drains.reset(id, epoch.number, { by: 'termination', reason: why }, why);
      }),
    );
  };

  const offer = async (socket: string): Promise<void> => {
    giving = await offerListeners(
      socket,
      {
        listeners: () => context.sockets.list,
        stop: () =>
          context.exclusive.run(async () => {
            const serving = registry.serving();
            if (serving) await stopAccepting(context, serving);
          }),
        // What was told to stop does not start again: another one of the same.
        resume: async () => {
          const old = registry.serving();
          if (!old) return;
          const { binary, config: file } = old.meta;
          drains.begin(old, old.meta.createdBy ?? '', config.policy);
          await serveAgain(context, () =>
            context.exclusive.run(async () => {
              // A successor may have come meanwhile, and have the sockets.
              if (context.sockets.list.length === 0) return;
              crashes.watch(await startEpoch(context, { binary, config: file }, stop.signal));
            }),
          ).catch((thrown: unknown) => {
            // As after too many crashes: refused at once is better than to wait in a queue.
            if (!stop.signal.aborted) context.sockets.refuse();
            crashes.exhausted = true;
            throw thrown;
          });
        },
        released: () => {
          context.sockets.close();
          drainAll('listen-fd').then(close, (error) => log('error', 'drain failed', { error: String(error) }));
        },
      },
      { log, bounds: { accepting: config.startTimeoutMs } },
    );
  };

  const terminate = async (): Promise<void> => {
    await upgrades.settle();
    const serving = registry.serving();
    if (serving) await stopAccepting(context, serving);
    context.sockets.refuse();
    await drainAll('terminate');
    await close();
  };

  const again = async (reason: string): Promise<void> => {
    const serving = registry.serving();
    if (!serving) return;
    const target = { to: serving.meta.binary, bootstrap: serving.meta.config };
    if (link?.connected) return context.send({ type: 'propose', target, reason });
    const { ok, checks } = await upgrades.check(target);
    if (!ok) {
      log('error', 'restart refused; the serving epoch is untouched', { reason, found: checks.filter((c) => !c.ok) });
      return;
    }
    await upgrades.start({ upgradeId: `local-${Date.now().toString(36)}`, target, policy: config.policy });
  };

  try {
    if (await adopt(context, drains)) {
      const serving = registry.serving();
      if (serving) crashes.watch(serving);
      if (spec.socket !== undefined) await offer(spec.socket);
    } else {
      const living = registry.all().flatMap((epoch) => epoch.group.living());
      const { sockets, taking } = await HeldSockets.open(spec.listen, spec.socket, living);
      context.sockets = sockets;
      const target = { binary: resolveBinary(config.envoy, config.envoys), config: config.bootstrap };
      try {
        const first = await context.exclusive.run(() => startEpoch(context, target, stop.signal));
        crashes.watch(first);
        if (taking) await taking.accepting(() => offer(spec.socket as string));
        else if (spec.socket !== undefined) await offer(spec.socket);
        log('info', 'first epoch serves', { epoch: first.number, version: first.meta.version, takenOver: !!taking });
      } catch (thrown) {
        const { code, message } = toSluiceError(thrown);
        taking?.abandon({ code, message });
        for (const epoch of registry.all()) if (epoch.meta.state === 'serving') await epoch.kill();
        throw thrown;
      }
    }
    if (!context.alone) {
      link = createLink({
        urls: config.controllers,
        hello: () => helloOf(context, []),
        onMessage: commandHandler(context, upgrades, drains),
        log,
        signal: stop.signal,
      });
      outbox.send = link.send;
    }
    announceEpochs(context);
    if (options.signals !== false) {
      undoSignals = installSignals({ terminate, hotRestart: again, reopenLogs: () => {}, leave: close }, log);
    }
  } catch (thrown) {
    await close();
    throw toSluiceError(thrown);
  }
  return { done: ended.promise, epochs: () => registry.statuses(config.slot), close };
}
