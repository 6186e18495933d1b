import { accessSync, constants } from 'node:fs';
import { resolve } from 'node:path';
import { completePolicy, type DrainPolicy, SluiceError, type UpgradeTarget } from '@sluice/contract';
import { resolveBinary } from '../../keeper/config.ts';
import { type Checked, reportServing, Starts, type UpgradeRequest } from '../../keeper/starts.ts';
import { chooseMethod, methodNamed } from '../../methods/choose.ts';
import type { HandoverMethod } from '../../methods/types.ts';
import { failed, passed } from '../../preflight/result.ts';
import type { CommandContext } from './context.ts';
import type { Drains } from './drains.ts';
import type { CommandEpoch } from './epoch.ts';
import { type CommandKind, listenFd } from './method.ts';
import { checkCommandPolicy } from './policy.ts';
import { versionOf } from './start.ts';

/** The ways to hand over where epochs inherit the sockets, the best first. */
const COMMAND_METHODS: readonly HandoverMethod<CommandKind>[] = [listenFd];

/** From the serving epoch to a new one on the same sockets. */
export class Upgrades {
  readonly #context: CommandContext;
  readonly #drains: Drains;
  readonly #watch: (epoch: CommandEpoch) => void;
  readonly #starts: Starts;

  constructor(context: CommandContext, drains: Drains, watch: (epoch: CommandEpoch) => void) {
    this.#context = context;
    this.#drains = drains;
    this.#watch = watch;
    this.#starts = new Starts(context);
  }

  /** Nothing of the serving epoch is touched. */
  async check(target: UpgradeTarget, policy: DrainPolicy = this.#context.config.policy): Promise<Checked> {
    const { config, registry } = this.#context;
    const serving = registry.serving();
    const from = serving && { from: serving.meta.version };
    const file = resolve(target.bootstrap ?? serving?.meta.config ?? config.bootstrap);
    let binary: string;
    try {
      binary = resolveBinary(target.to, config.envoys);
      accessSync(file, constants.R_OK);
    } catch (thrown) {
      const isBinary = thrown instanceof SluiceError;
      const code = isBinary ? thrown.code : 'PREFLIGHT_BOOTSTRAP';
      return {
        ok: false,
        checks: [failed(isBinary ? 'binary' : 'configuration', code, (thrown as Error).message)],
        ...from,
      };
    }
    const subject = { context: this.#context, binary, file };
    const asked = COMMAND_METHODS.map(async (one) => ({ name: one.name, checks: await one.check(subject) }));
    const { method, checks: own, check } = chooseMethod(target.method ?? 'auto', await Promise.all(asked));
    const checks = [passed('binary', binary), ...own, check, checkCommandPolicy(completePolicy(policy))];
    const to = await versionOf(this.#context, binary);
    return { ok: checks.every(({ ok }) => ok), checks, ...from, to, ...(method && { method }) };
  }

  /** Repeating a start that is done reports it again. On failure `failed` is sent, with what serves now. */
  async start(request: UpgradeRequest): Promise<void> {
    await this.#starts.run(request.upgradeId, (aborted) => this.#start(request, aborted));
  }

  abort(upgradeId: string): boolean {
    return this.#starts.abort(upgradeId);
  }

  /** Gives up every start that is under way; resolves when none is. */
  settle(): Promise<void> {
    return this.#starts.settle();
  }

  async #start({ upgradeId, target, policy }: UpgradeRequest, aborted: AbortSignal): Promise<void> {
    const { registry, config, log, now } = this.#context;
    const done = registry.all().find(({ meta }) => meta.createdBy === upgradeId && meta.state === 'serving');
    if (done) return this.#report(upgradeId, done, registry.get(done.meta.parent ?? -1));
    const old = registry.serving();
    if (!old) throw new SluiceError('PHASE_REFUSED', 'expected an epoch that serves, found none; it may be restarting');
    const began = now();
    const { method: wish = 'auto' } = target;
    const method = methodNamed(COMMAND_METHODS, wish === 'auto' ? listenFd.name : wish);
    const { epoch } = await method.handOver({
      context: this.#context,
      old,
      start: {
        target: {
          binary: resolveBinary(target.to, config.envoys),
          config: resolve(target.bootstrap ?? old.meta.config),
          ...method.line(old.meta, { createdBy: upgradeId }),
        },
        aborted,
        watch: this.#watch,
      },
    });
    this.#drains.begin(old, upgradeId, policy);
    this.#report(upgradeId, epoch, old);
    log('info', 'new epoch serves', {
      epoch: epoch.number,
      version: epoch.meta.version,
      method: method.name,
      old: old.number,
      ms: now() - began,
    });
  }

  #report(upgradeId: string, epoch: CommandEpoch, old: CommandEpoch | undefined): void {
    reportServing(this.#context, upgradeId, { epoch, old, at: epoch.meta.servingSince ?? this.#context.now() });
  }
}
