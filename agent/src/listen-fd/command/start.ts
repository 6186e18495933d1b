import { setTimeout as delay } from 'node:timers/promises';
import { SluiceError } from '@sluice/contract';
import { receive } from '../../native/datagram.ts';
import { close, makeFifo } from '../../native/fds.ts';
import { bindNotify } from '../../native/notify-socket.ts';
import { watchReadable } from '../../native/poller.ts';
import type { CommandContext } from './context.ts';
import { CommandEpoch } from './epoch.ts';
import { launchCommand, runCommand } from './launch.ts';
import { fill } from './spec.ts';

export interface CommandTarget {
  readonly binary: string;
  readonly config: string;
  readonly upgradeId?: string;
  readonly parent?: number;
  /** What to go back to when it crashes again and again. */
  readonly before?: { readonly binary: string; readonly config: string };
}

/**
 * Starts the target on the held sockets and resolves when it says that it serves. Throws EPOCH_DIED or EPOCH_TIMEOUT with
 * the end of its log, and its processes dead: whoever accepted before accepts still.
 */
export async function startEpoch(
  context: CommandContext,
  target: CommandTarget,
  aborted: AbortSignal,
): Promise<CommandEpoch> {
  const { config, spec, sockets, registry, log, now } = context;
  const folder = registry.create();
  makeFifo(folder.alive);
  const words = { BINARY: target.binary, CONFIG: target.config, DIR: folder.path };
  const version = await versionOf(context, target.binary);
  const ready = new Ready(folder.notify);
  try {
    const started = await launchCommand({
      binary: target.binary,
      args: fill(spec.args, words),
      sockets: sockets.list,
      env: { ...spec.env, NOTIFY_SOCKET: folder.notify },
      alive: folder.alive,
      log: folder.log,
      cwd: folder.path,
    });
    const meta = {
      epoch: folder.epoch,
      ...started,
      state: 'starting' as const,
      binary: target.binary,
      config: target.config,
      version,
      addresses: sockets.addresses,
      startedAt: now(),
      ...(target.upgradeId !== undefined && { createdBy: target.upgradeId }),
      ...(target.parent !== undefined && { parent: target.parent }),
      ...(target.before && { before: target.before }),
    };
    folder.writeMeta(meta);
    const epoch = new CommandEpoch(folder, meta, { log, endSignal: spec.endSignal });
    registry.add(epoch);
    try {
      await ready.within(config.startTimeoutMs, epoch, AbortSignal.any([context.signal, aborted]));
    } catch (thrown) {
      await epoch.kill();
      registry.remove(epoch);
      throw thrown;
    }
    epoch.update({ state: 'serving', servingSince: now() });
    return epoch;
  } finally {
    ready.close();
  }
}

/** `1.2.3` of what it says, or `0`. */
export async function versionOf({ spec, config }: CommandContext, binary: string): Promise<string> {
  if (spec.version === undefined) return '0';
  const { text } = await runCommand(binary, spec.version, { sockets: [], env: spec.env, cwd: config.dir });
  return /\d+\.\d+(\.\d+)?/.exec(text)?.[0] ?? '0';
}

/** Waits for READY=1 (sd_notify(3)). */
class Ready {
  readonly #fd: number;
  readonly #said = Promise.withResolvers<void>();
  readonly #watch: { stop(): void };

  constructor(path: string) {
    this.#fd = bindNotify(path);
    this.#watch = watchReadable(this.#fd, () => this.#read());
  }

  async within(ms: number, epoch: CommandEpoch, signal: AbortSignal): Promise<void> {
    const over = new AbortController();
    const tail = () => {
      const said = epoch.folder.logTail();
      return said === '' ? 'it wrote nothing' : `it wrote last: ${said}`;
    };
    const died = epoch.gone.then(() => {
      throw new SluiceError('EPOCH_DIED', `expected ${epoch.meta.binary} to say READY=1, found it ended; ${tail()}`);
    });
    const late = delay(ms, undefined, { signal: over.signal }).then(() => {
      throw new SluiceError(
        'EPOCH_TIMEOUT',
        `expected ${epoch.meta.binary} to say READY=1 within ${ms} ms, found it did not; ${tail()}`,
      );
    });
    const stopped = new Promise<never>((_, reject) => {
      const onAbort = () => reject(signal.reason);
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort, { once: true, signal: over.signal });
    });
    try {
      await Promise.race([this.#said.promise, died, late, stopped]);
    } finally {
      died.catch(() => {});
      late.catch(() => {});
      over.abort();
    }
  }

  close(): void {
    this.#watch.stop();
    close(this.#fd);
  }

  #read(): void {
    for (;;) {
      let message: ReturnType<typeof receive>;
      try {
        message = receive(this.#fd);
      } catch {
        continue; // one that was too large: not ours
      }
      if (message === undefined) return;
      for (const fd of message.fds) close(fd);
      if (message.data.toString('utf8').split('\n').includes('READY=1')) this.#said.resolve();
    }
  }
}
