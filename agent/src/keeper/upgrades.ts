import type { CheckResult, DrainPolicy, UpgradeTarget } from '@sluice/contract';
import { SluiceError, toSluiceError } from '@sluice/contract';
import { probe } from '../broker/index.ts';
import type { Epoch } from '../epochs/epoch.ts';
import { bringUp, type EpochPlan, type Predecessor } from '../epochs/handover.ts';
import { preflight } from '../preflight/index.ts';
import { udpAddressesOf } from '../witnesses/udp.ts';
import { resolveBinary } from './config.ts';
import { announceEpochs, type KeeperContext } from './context.ts';
import type { Drains } from './drains.ts';
import { keepListeners } from './kept.ts';
import { binaryVersion, mergeForCheck, planEpoch } from './plan.ts';

export const METHOD = 'hot-restart';

export interface UpgradeRequest {
  readonly upgradeId: string;
  readonly target: UpgradeTarget;
  readonly policy: DrainPolicy;
}

/** Starts new epochs in the place of the serving one. */
export class Upgrades {
  readonly #context: KeeperContext;
  readonly #drains: Drains;
  readonly #adopted: (epoch: Epoch) => void;
  readonly #aborts = new Map<string, AbortController>();

  /** `watch` is told of each new process. */
  constructor(context: KeeperContext, drains: Drains, watch: (epoch: Epoch) => void) {
    this.#context = context;
    this.#drains = drains;
    this.#adopted = watch;
  }

  /** Checks the target; nothing of the serving epoch is touched. */
  async check(
    target: UpgradeTarget,
  ): Promise<{ ok: boolean; checks: readonly CheckResult[]; from?: string; to?: string }> {
    const { config, registry } = this.#context;
    const serving = registry.serving();
    let binary: string;
    try {
      binary = resolveBinary(target.to, config.envoys);
    } catch (thrown) {
      const error = toSluiceError(thrown);
      const failed = {
        name: 'binary',
        ok: false,
        found: error.message,
        code: `SLUICE_${error.code}`,
        hint: error.hint,
      };
      return { ok: false, checks: [failed], ...(serving && { from: serving.meta.version }) };
    }
    const to = await binaryVersion(binary).catch(() => undefined);
    const source = target.bootstrap ?? serving?.meta.bootstrap ?? config.bootstrap;
    let mergedBootstrap: Record<string, unknown>;
    try {
      mergedBootstrap = await mergeForCheck(this.#context, binary, to ?? '0', source);
    } catch (thrown) {
      const found = toSluiceError(thrown).message;
      const check = {
        name: 'bootstrap',
        ok: false,
        found,
        code: 'SLUICE_PREFLIGHT_BOOTSTRAP',
        hint: 'correct the file',
      };
      return {
        ok: false,
        checks: [check],
        ...(serving && { from: serving.meta.version }),
        ...(to !== undefined && { to }),
      };
    }
    const result = await preflight({
      binary,
      mergedBootstrap,
      baseId: config.baseId,
      // The same for every epoch; a bootstrap can not change it, Envoy's flag can, and that one is ours.
      concurrency: serving?.meta.concurrency ?? config.concurrency,
      runFolder: registry.root,
      udpAddresses: serving ? udpAddressesOf(serving.process.pid, serving.meta.listenAddresses ?? []) : [],
      probe,
      ...(serving && { serving: { ...serving.meta } }),
    });
    return { ...result, ...(serving && { from: serving.meta.version }), ...(to !== undefined && { to }) };
  }

  /**
   * From the serving epoch to a new one. Repeating a start that is done reports it again; one under way is joined by the
   * queue. On failure `failed` is sent with what serves now.
   */
  async start(request: UpgradeRequest): Promise<void> {
    const { exclusive, log, send } = this.#context;
    const abort = new AbortController();
    this.#aborts.set(request.upgradeId, abort);
    try {
      await exclusive.run(() => this.#start(request, abort.signal));
    } catch (thrown) {
      const error = toSluiceError(thrown);
      const servingEpoch = this.#context.registry.serving()?.number ?? -1;
      log('error', 'upgrade failed', { upgradeId: request.upgradeId, code: error.code, error: error.message });
      const { upgradeId } = request;
      send({
        type: 'failed',
        upgradeId,
        code: `SLUICE_${error.code}`,
        message: error.message,
        servingEpoch,
        rolledBack: false,
      });
    } finally {
      this.#aborts.delete(request.upgradeId);
    }
  }

  /** Gives up a start that does not serve yet. Returns whether there was one. */
  abort(upgradeId: string): boolean {
    const abort = this.#aborts.get(upgradeId);
    abort?.abort(new SluiceError('PHASE_REFUSED', 'the upgrade was aborted'));
    return abort !== undefined;
  }

  async #start(request: UpgradeRequest, aborted: AbortSignal): Promise<void> {
    aborted.throwIfAborted();
    const { registry, config } = this.#context;
    const { upgradeId, target } = request;
    const done = registry.all().find((e) => e.meta.createdBy === upgradeId && e.meta.state !== 'starting');
    if (done) {
      const parent = registry.all().find((e) => e.number === done.meta.parent);
      this.#reportServing(upgradeId, done, parent, done.meta.servingSince ?? done.meta.startedAt);
      return;
    }
    const old = registry.serving();
    if (!old) throw new SluiceError('PHASE_REFUSED', 'expected an epoch that serves, found none; it may be restarting');
    const plan = await planEpoch(this.#context, {
      binary: resolveBinary(target.to, config.envoys),
      bootstrap: target.bootstrap ?? old.meta.bootstrap,
      concurrency: old.meta.concurrency,
      restartEpoch: old.meta.restartEpoch + 1,
      upgradeId,
    });
    await this.replace(old, plan, request, aborted);
  }

  /** The handover itself; the caller holds the exclusive right. */
  async replace(old: Epoch, plan: EpochPlan, request: UpgradeRequest, aborted: AbortSignal): Promise<void> {
    const { registry, kept, log, config, now, signal } = this.#context;
    await keepListeners(this.#context, old);
    const predecessor: Predecessor = {
      kind: 'live',
      party: old.party,
      number: old.number,
      // With an admin address of its own per epoch nobody has to close one; a fixed one must pass on.
      originalStart: old.meta.lineStartedAt ?? old.meta.startedAt,
      ownAdmin: old.meta.adminAddress.startsWith('/') && plan.adminAddress !== old.meta.adminAddress,
    };
    const { epoch, servingAt, independent } = await bringUp({
      plan,
      predecessor,
      kept,
      timeoutMs: config.startTimeoutMs,
      ...(this.#context.launch && { launch: this.#context.launch }),
      signal: AbortSignal.any([signal, aborted]),
      log,
      onLaunched: (launched) => {
        registry.add(launched);
        announceEpochs(this.#context);
      },
    }).catch((error) => {
      for (const e of registry.all()) if (e.number === plan.folder.epoch) registry.remove(e);
      announceEpochs(this.#context);
      throw error;
    });
    epoch.update({ servingSince: servingAt });
    this.#adopted(epoch);
    this.#drains.begin(old, request.upgradeId, request.policy);
    this.#reportServing(request.upgradeId, epoch, old, servingAt);
    log('info', 'new epoch serves', {
      epoch: epoch.number,
      version: epoch.meta.version,
      old: old.number,
      ms: now() - epoch.meta.startedAt,
    });
    // A new epoch that dies in these two seconds is a crash, and answered as one: the upgrade itself has not failed.
    await independent.catch((error: unknown) => log('warn', 'handover not finished', { error: String(error) }));
    if (registry.serving() === epoch) await keepListeners(this.#context, epoch);
  }

  #reportServing(upgradeId: string, epoch: Epoch, old: Epoch | undefined, at: number): void {
    this.#context.send({
      type: 'serving',
      upgradeId,
      epoch: epoch.number,
      oldEpoch: old?.number ?? epoch.meta.parent ?? -1,
      from: old?.meta.version ?? '',
      to: epoch.meta.version,
      at,
      method: METHOD,
    });
    announceEpochs(this.#context);
  }
}
