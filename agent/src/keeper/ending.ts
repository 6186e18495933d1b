import { setTimeout as delay } from 'node:timers/promises';
import { type CutConnection, toSluiceError } from '@sluice/contract';
import type { Epoch } from '../epochs/epoch.ts';
import type { EndReport } from '../handoff/end-report.ts';
import { type EndAsked, endOf, lingerUntil, waitUntil, whyCut } from '../handoff/grace.ts';
import type { KeeperContext } from './context.ts';
import type { Drains } from './drains.ts';
import { stopServing } from './terminate.ts';

/** The controller's word on a safe epoch takes a moment; one that is away must not hold up an end. */
const AUTHORISE_MS = 3_000;
/** The cut of what is left at the bound, instead of the ten seconds that a reset may take for it. */
const CUT_MS = 1_000;
const BETWEEN_TRIES_MS = 100;

/**
 * The end of this agent by its Pod: a preStop hook, then SIGTERM, then SIGKILL, all within the termination grace. An old
 * container is held until its verdict is safe; what the grace is too short for is cut in time, and named.
 */
export class Ending {
  readonly #context: KeeperContext;
  readonly #drains: Drains;
  readonly #linked: () => boolean;
  #asked: EndAsked | undefined;
  #end: Promise<EndReport> | undefined;
  readonly #signalled = Promise.withResolvers<void>();

  constructor(context: KeeperContext, drains: Drains, linked: () => boolean) {
    this.#context = context;
    this.#drains = drains;
    this.#linked = linked;
  }

  /** Epochs are being ended, or have been. */
  get begun(): boolean {
    return this.#end !== undefined;
  }

  /** The preStop hook: resolves when nothing is left to wait for, or the bound is reached. */
  async prestop(): Promise<EndReport> {
    const end = await this.#decide();
    if (end === 'hold') return this.#hold('held');
    // Nobody serves after this one: SIGTERM comes next, and drains. New connections come for a moment still, and are served.
    const { now } = this.#context;
    const lingerMs = Math.max(0, lingerUntil(this.#asked as EndAsked) - now());
    await Promise.race([delay(lingerMs, undefined, { ref: false }), this.#signalled.promise]);
    return { end: 'serving', cut: [], byGrace: false };
  }

  /** SIGTERM: all epochs end. */
  async terminate(): Promise<EndReport> {
    this.#signalled.resolve();
    const end = await this.#decide();
    if (end === 'hold') return this.#hold('held');
    // A second signal does not make it longer.
    this.#asked = { drainAt: this.#context.now(), ...(this.#asked as EndAsked) };
    await stopServing(this.#context, this.#drains);
    return this.#hold('drained');
  }

  async #decide(): Promise<'hold' | 'drain'> {
    const { config, now, registry, standing, log } = this.#context;
    this.#asked ??= { at: now(), graceMs: config.terminationGraceMs, drainMs: config.terminationDrainMs };
    // What it is not known yet; the longer of the two bounds.
    const { until, byGrace } = waitUntil(this.#asked, 'hold');
    const look = () =>
      endOf({ serving: registry.serving() !== undefined, taking: standing.facts.taking !== undefined });
    const limit = AbortSignal.timeout(Math.max(0, Math.min(until - now(), config.startTimeoutMs)));
    const end = await standing
      .until(() => (look() === 'wait' ? undefined : (look() as 'hold' | 'drain')), limit)
      .catch((): 'drain' => 'drain');
    log('info', 'the end is asked for', { end, peer: standing.facts.handedTo?.slot, leftMs: until - now(), byGrace });
    return end;
  }

  /** Ends every epoch, each by its own verdict. A second call joins the first. */
  #hold(end: 'held' | 'drained'): Promise<EndReport> {
    const asked = this.#asked as EndAsked;
    this.#end ??= (async (): Promise<EndReport> => {
      const { registry, standing } = this.#context;
      const bound = waitUntil(asked, end === 'held' ? 'hold' : 'drain');
      const cut = (await Promise.all(registry.all().map((epoch) => this.#holdOne(epoch, asked, bound)))).flat();
      const { byGrace } = bound;
      const peer = standing.facts.handedTo?.slot;
      return {
        end,
        cut,
        byGrace: cut.length > 0 && byGrace,
        ...(peer !== undefined && { peer }),
        ...(cut.length > 0 && { why: whyCut(asked, byGrace) }),
      };
    })();
    return this.#end;
  }

  async #holdOne(
    epoch: Epoch,
    asked: EndAsked,
    { until, byGrace }: ReturnType<typeof waitUntil>,
  ): Promise<EndReport['cut']> {
    const { registry, log, now } = this.#context;
    const upgradeId = epoch.meta.endedBy ?? '';
    while (epoch.drain) {
      const safe = await Promise.race([epoch.drain.untilSafe(until - now()), epoch.gone.then(() => undefined)]);
      if (safe && this.#linked()) await Promise.race([epoch.gone, delay(Math.min(AUTHORISE_MS, until - now()))]);
      try {
        // Joins a reset that is under way already.
        if (safe || epoch.ending) return named(epoch, (await this.#drains.reset(upgradeId, epoch.number)).cut);
        if (safe === undefined) break; // it ended by itself
        const why = whyCut(asked, byGrace);
        const override = { by: 'termination', reason: why };
        const { cut } = await this.#drains.reset(upgradeId, epoch.number, override, { why, cutMs: CUT_MS });
        if (cut.length > 0) log('warn', 'ended with protected connections', { epoch: epoch.number, why, cut });
        return named(epoch, cut);
      } catch (thrown) {
        // Safe a moment ago and not any more; anything else must not hold up the end.
        const error = toSluiceError(thrown);
        log('warn', 'reset refused', { epoch: epoch.number, code: error.code, error: error.message });
        if (error.code !== 'RESET_PROTECTED') break;
        await delay(BETWEEN_TRIES_MS);
      }
    }
    await epoch.end();
    registry.remove(epoch);
    return [];
  }
}

function named(epoch: Epoch, cut: readonly CutConnection[]): EndReport['cut'] {
  return cut.map((one) => ({ ...one, epoch: epoch.number }));
}
