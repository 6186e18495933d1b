import type { CheckResult } from '@sluice/contract';
import type { HandoverMethod, ProxyKind } from '../../methods/types.ts';
import { failed, passed } from '../../preflight/result.ts';
import type { CommandContext } from './context.ts';
import type { CommandEpoch, CommandMeta } from './epoch.ts';
import { runCommand } from './launch.ts';
import { fill } from './spec.ts';
import { type CommandTarget, startEpoch } from './start.ts';
import { stopAccepting } from './stop.ts';

export interface CommandKind extends ProxyKind {
  readonly context: CommandContext;
  readonly epoch: CommandEpoch;
  readonly subject: CommandSubject;
  readonly planned: Pick<CommandMeta, 'createdBy'>;
  readonly line: Pick<CommandTarget, 'upgradeId' | 'parent' | 'before'>;
  readonly start: CommandStart;
  readonly up: { readonly epoch: CommandEpoch; readonly servingAt: number };
}

export interface CommandSubject {
  readonly context: Pick<CommandContext, 'spec' | 'sockets' | 'config'>;
  readonly binary: string;
  /** The new epoch's configuration. */
  readonly file: string;
}

export interface CommandStart {
  readonly target: CommandTarget;
  readonly aborted: AbortSignal;
  /** Told of the new epoch once it serves, while the old one may accept still. */
  readonly watch: (epoch: CommandEpoch) => void;
}

/** From one epoch to another one on the same held sockets, which both of them inherited. */
export const listenFd: HandoverMethod<CommandKind> = {
  name: 'listen-fd',

  /** The proxy's own check of the configuration, with the sockets that it is to inherit. */
  async check({ context: { spec, sockets, config }, binary, file }): Promise<readonly CheckResult[]> {
    if (spec.check === undefined) return [passed('configuration', `${file}, not checked: no check is configured`)];
    const args = fill(spec.check, { BINARY: binary, CONFIG: file, DIR: config.dir });
    const { code, text } = await runCommand(binary, args, { sockets: sockets.list, env: spec.env, cwd: config.dir });
    if (code === 0) return [passed('configuration', file)];
    const found = `exit ${code ?? 'in no time'}: ${text.slice(-800)}`;
    return [failed('configuration', 'PREFLIGHT_BOOTSTRAP', found)];
  },

  line: ({ epoch, binary, config }, { createdBy }) => ({
    ...(createdBy !== undefined && { upgradeId: createdBy }),
    parent: epoch,
    before: { binary, config },
  }),

  async handOver({ context, old, start: { target, aborted, watch } }) {
    const epoch = await startEpoch(context, target, aborted);
    watch(epoch);
    // Both accept for a moment, out of the same queue.
    await stopAccepting(context, old);
    return { epoch, servingAt: epoch.meta.servingSince ?? context.now() };
  },

  /** One that never said that it is ready is killed. One that has serves, and the old one is stopped (once more, it may be). */
  async settle({ context, starting, old }) {
    if (starting.meta.state === 'starting') {
      await starting.kill();
      return false;
    }
    if (old) await stopAccepting(context, old);
    return true;
  },
};
