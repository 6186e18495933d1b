import type { DrainPolicy, UpgradeTarget } from '@sluice/contract';
import { completePolicy, SluiceError, toSluiceError } from '@sluice/contract';
import { probe } from '../binaries/probe.ts';
import { binaryVersion } from '../binaries/version.ts';
import type { Epoch } from '../epochs/epoch.ts';
import type { EpochPlan } from '../epochs/handover.ts';
import { ENVOY_METHODS, type HandoverMethod, methodNamed } from '../methods/index.ts';
import { methodFor, type PreflightInput, preflight, type Serving } from '../preflight/index.ts';
import { checkLevers } from '../preflight/levers.ts';
import { checkPolicy } from '../preflight/policy.ts';
import { failed } from '../preflight/result.ts';
import { NO_UDP, type UdpListeners, udpListeners } from '../witnesses/listener-kinds.ts';
import { udpAddressesOf } from '../witnesses/udp.ts';
import { bring } from './bring.ts';
import { resolveBinary } from './config.ts';
import type { KeeperContext } from './context.ts';
import { Courtesy } from './courtesy.ts';
import type { Drains } from './drains.ts';
import { keepListeners } from './kept.ts';
import { sampleBefore } from './load.ts';
import { mergeForCheck, planEpoch } from './plan.ts';
import { type Checked, reportServing, Starts, type UpgradeRequest } from './starts.ts';
import { sweepSharedMemory } from './sweep.ts';

export type { Checked, UpgradeRequest } from './starts.ts';

/** Starts new epochs in the place of the serving one. */
export class Upgrades {
  readonly #context: KeeperContext;
  readonly #drains: Drains;
  readonly #adopted: (epoch: Epoch) => void;
  readonly #starts: Starts;
  readonly #courtesy: Courtesy;

  /** `watch` is told of each new process. */
  constructor(context: KeeperContext, drains: Drains, watch: (epoch: Epoch) => void) {
    this.#context = context;
    this.#drains = drains;
    this.#adopted = watch;
    this.#starts = new Starts(context);
    this.#courtesy = new Courtesy(() => context.registry.all().length);
    context.standing.onChange(() => this.#courtesy.look());
  }

  /** Checks the target, and what policy wants of the serving epoch; nothing of that is touched. */
  async check(target: UpgradeTarget, policy: DrainPolicy = this.#context.config.policy): Promise<Checked> {
    const epoch = this.#context.registry.serving();
    const serving = epoch?.meta;
    if (epoch !== undefined) sampleBefore(this.#context, epoch);
    const udp = await this.#udp();
    const result = await this.#courtesy.during(() => this.#checkTarget(target, serving?.version, udp));
    if (serving === undefined) return result;
    const kept = checkPolicy(completePolicy(policy), { ...serving, quic: udp.quic.names });
    const levers = checkLevers(serving.version, result.to);
    return { ...result, ok: result.ok && kept.ok, checks: [...result.checks, levers, kept] };
  }

  async #checkTarget(target: UpgradeTarget, from: string | undefined, udp: UdpListeners): Promise<Checked> {
    const known = from === undefined ? {} : { from };
    let binary: string;
    try {
      binary = resolveBinary(target.to, this.#context.config.envoys);
    } catch (thrown) {
      const error = toSluiceError(thrown);
      return { ok: false, checks: [failed('binary', error.code, error.message, error.hint)], ...known };
    }
    const to = await binaryVersion(binary).catch(() => undefined);
    const versions = { ...known, ...(to !== undefined && { to }) };
    try {
      return {
        ...(await preflight(await this.#preflightInput(target, { binary, version: to ?? '0', udp }))),
        ...versions,
      };
    } catch (thrown) {
      const found = toSluiceError(thrown).message;
      return {
        ok: false,
        checks: [failed('bootstrap', 'PREFLIGHT_BOOTSTRAP', found, 'correct the file')],
        ...versions,
      };
    }
  }

  /** Of the serving epoch. What its admin does not tell is UDP of no known kind, and refused as that. */
  async #udp(): Promise<UdpListeners> {
    const epoch = this.#context.registry.serving();
    return epoch ? await udpListeners(epoch).catch(() => NO_UDP) : NO_UDP;
  }

  /** Throws what is wrong with the bootstrap. */
  async #preflightInput(
    target: UpgradeTarget,
    { binary, version, udp: { quic, other } }: { binary: string; version: string; udp: UdpListeners },
  ): Promise<PreflightInput> {
    const { config, registry } = this.#context;
    const serving = registry.serving()?.meta;
    const source = target.bootstrap ?? serving?.bootstrap ?? config.bootstrap;
    return {
      binary,
      mergedBootstrap: await mergeForCheck(this.#context, binary, version, source),
      // The same for every epoch; a bootstrap can not change it, Envoy's flag can, and that one is ours.
      concurrency: serving?.concurrency ?? config.concurrency,
      runFolder: registry.root,
      // Also by its sockets: a configuration that could not be read tells of none.
      udpAddresses: serving
        ? [...new Set([...other, ...udpAddressesOf(serving.pid, serving.listenAddresses ?? [])])].filter(
            (one) => !quic.addresses.includes(one),
          )
        : [],
      quic: quic.names.length > 0,
      hotRestart: config.hotRestart,
      wish: target.method ?? 'auto',
      methods: ENVOY_METHODS,
      probe,
      ...(serving && { serving }),
    };
  }

  /**
   * From the serving epoch to a new one. Repeating a start that is done reports it again; one under way is joined by the
   * queue. On failure `failed` is sent with what serves now.
   */
  async start(request: UpgradeRequest): Promise<void> {
    await this.#starts.run(request.upgradeId, (aborted) => this.#courtesy.during(() => this.#start(request, aborted)));
  }

  /** Gives up a start that does not serve yet. Returns whether there was one. */
  abort(upgradeId: string): boolean {
    return this.#starts.abort(upgradeId);
  }

  async #start(request: UpgradeRequest, aborted: AbortSignal): Promise<void> {
    const { registry, config } = this.#context;
    const { upgradeId, target } = request;
    const done = registry.all().find((e) => e.meta.createdBy === upgradeId && e.meta.state !== 'starting');
    if (done) {
      const parent = registry.all().find((e) => e.number === done.meta.parent);
      const at = done.meta.servingSince ?? done.meta.startedAt;
      reportServing(this.#context, upgradeId, { epoch: done, old: parent, at });
      return;
    }
    const old = registry.serving();
    if (!old) throw new SluiceError('PHASE_REFUSED', 'expected an epoch that serves, found none; it may be restarting');
    sampleBefore(this.#context, old);
    const binary = resolveBinary(target.to, config.envoys);
    const method = await this.#methodFor(target, binary, old.meta);
    const hotRestart = config.hotRestart && (await probe(binary)).wire === 'known';
    const plan = await planEpoch(this.#context, {
      binary,
      bootstrap: target.bootstrap ?? old.meta.bootstrap,
      concurrency: old.meta.concurrency,
      line: (epoch) => method.line(old.meta, { epoch, hotRestart }),
      method: method.name,
      upgradeId,
    });
    await this.#replace(old, { plan, method, request, aborted });
  }

  /** Chosen anew at the start: what the preflight found may be hours old. Throws PREFLIGHT_METHOD. */
  async #methodFor(target: UpgradeTarget, binary: string, serving: Serving): Promise<HandoverMethod> {
    const version = await binaryVersion(binary);
    const input = await this.#preflightInput(target, { binary, version, udp: await this.#udp() });
    const { method, check } = await methodFor({ ...input, serving });
    if (method !== undefined) return methodNamed(ENVOY_METHODS, method);
    throw new SluiceError('PREFLIGHT_METHOD', `expected a handover method that can do this, found: ${check.found}`);
  }

  /** The handover itself; the caller holds the exclusive right. */
  async #replace(
    old: Epoch,
    {
      plan,
      method,
      request,
      aborted,
    }: { plan: EpochPlan; method: HandoverMethod; request: UpgradeRequest; aborted: AbortSignal },
  ): Promise<void> {
    const { registry, log, now } = this.#context;
    const { epoch, servingAt, independent } = await bring(this.#context, {
      plan,
      start: (start) => method.handOver({ context: this.#context, old, start }),
      watch: this.#adopted,
      aborted,
    });
    this.#drains.begin(old, request.upgradeId, request.policy);
    reportServing(this.#context, request.upgradeId, { epoch, old, at: servingAt });
    log('info', 'new epoch serves', {
      epoch: epoch.number,
      version: epoch.meta.version,
      method: method.name,
      old: old.number,
      ms: now() - epoch.meta.startedAt,
    });
    // A new epoch that dies in these two seconds is a crash, and answered as one: the upgrade itself has not failed.
    await independent.catch((error: unknown) => log('warn', 'handover not finished', { error: String(error) }));
    if (registry.serving() === epoch) await keepListeners(this.#context, epoch);
    sweepSharedMemory(this.#context);
  }
}
