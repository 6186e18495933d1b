import { accessSync, constants } from 'node:fs';
import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { completePolicy, type DrainPolicy, SluiceError, type UpgradeTarget } from '@sluice/contract';
import { resolveBinary } from '../../keeper/config.ts';
import { type Checked, reportServing, Starts, type UpgradeRequest } from '../../keeper/starts.ts';
import { failed, passed } from '../../preflight/result.ts';
import type { CommandContext } from './context.ts';
import type { Drains } from './drains.ts';
import type { CommandEpoch } from './epoch.ts';
import { runCommand } from './launch.ts';
import { checkCommandPolicy } from './policy.ts';
import { fill } from './spec.ts';
import { startEpoch, versionOf } from './start.ts';

export const METHOD = 'listen-fd';

const STOP_BOUND_MS = 10_000;
const STOP_FIRST_LOOK_MS = 5;
const STOP_LOOK_MS = 100;

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
    const { config, spec, sockets, registry } = this.#context;
    const serving = registry.serving();
    const from = serving && { from: serving.meta.version };
    const file = resolve(target.bootstrap ?? serving?.meta.config ?? config.bootstrap);
    if (target.method !== undefined && target.method !== 'auto' && target.method !== METHOD) {
      const found = `${target.method} is a way between two Envoys; this proxy is another one`;
      return { ok: false, checks: [failed('method', 'PREFLIGHT_METHOD', found)], ...from };
    }
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
    const checks = [passed('method', METHOD), passed('binary', binary), checkCommandPolicy(completePolicy(policy))];
    if (spec.check === undefined) checks.push(passed('configuration', `${file}, not checked: no check is configured`));
    else {
      const words = { BINARY: binary, CONFIG: file, DIR: config.dir };
      const args = fill(spec.check, words);
      const { code, text } = await runCommand(binary, args, { sockets: sockets.list, env: spec.env, cwd: config.dir });
      checks.push(
        code === 0
          ? passed('configuration', file)
          : failed('configuration', 'PREFLIGHT_BOOTSTRAP', `exit ${code ?? 'in no time'}: ${text.slice(-800)}`),
      );
    }
    const to = await versionOf(this.#context, binary);
    return { ok: checks.every(({ ok }) => ok), checks, ...from, to };
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
    const epoch = await startEpoch(
      this.#context,
      {
        binary: resolveBinary(target.to, config.envoys),
        config: resolve(target.bootstrap ?? old.meta.config),
        upgradeId,
        parent: old.number,
        before: { binary: old.meta.binary, config: old.meta.config },
      },
      aborted,
    );
    this.#watch(epoch);
    // Both accept for a moment, out of the same queue.
    await stopAccepting(this.#context, old);
    this.#drains.begin(old, upgradeId, policy);
    this.#report(upgradeId, epoch, old);
    log('info', 'new epoch serves', {
      epoch: epoch.number,
      version: epoch.meta.version,
      old: old.number,
      ms: now() - began,
    });
  }

  #report(upgradeId: string, epoch: CommandEpoch, old: CommandEpoch | undefined): void {
    reportServing(this.#context, upgradeId, { epoch, old, at: epoch.meta.servingSince ?? this.#context.now() });
  }
}

/**
 * The stop signal, and then the kernel's word that its listeners are closed. One that does not obey within the bound
 * accepts on, beside its successor; its drain says so and is never safe until it has obeyed.
 */
export async function stopAccepting({ spec, log, signal }: CommandContext, epoch: CommandEpoch): Promise<void> {
  // One without connections ends at once: no crash.
  epoch.ending = true;
  epoch.group.signal(spec.stopSignal);
  const end = performance.now() + STOP_BOUND_MS;
  // The kernel has no event for a listener that closes; this lasts some milliseconds.
  for (let wait = STOP_FIRST_LOOK_MS; epoch.group.accepts(); wait = Math.min(2 * wait, STOP_LOOK_MS)) {
    if (performance.now() > end) {
      const { stopSignal } = spec;
      return log('warn', 'an old epoch accepts still after its stop signal', { epoch: epoch.number, stopSignal });
    }
    await delay(wait, undefined, { signal });
  }
}
