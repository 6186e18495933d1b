import { SluiceError } from '@sluice/contract';
import { probe } from '../binaries/probe.ts';
import type { Epoch } from '../epochs/epoch.ts';
import { bringUp, type Predecessor } from '../epochs/handover.ts';
import { bring } from '../keeper/bring.ts';
import { derivedBaseId } from '../keeper/config.ts';
import { announceEpochs, type KeeperContext } from '../keeper/context.ts';
import { keepListeners, silenceKept } from '../keeper/kept.ts';
import { planEpoch } from '../keeper/plan.ts';
import { migratesRequests } from '../native/migrate-req.ts';
import { type CrashHistory, NO_CRASHES, onCrash } from './budget.ts';

/** After so many crashes within one upgrade the version from before serves again: a flip back, not an eleventh try. */
const CRASHES_BEFORE_ROLLBACK = 2;

/**
 * Watches every epoch's process. A crash of the serving one is answered with a fresh epoch on the kept listen sockets, in
 * which connections wait meanwhile: none is refused (envoy-facts, kept listen fds).
 */
export class Crashes {
  readonly #context: KeeperContext;
  #history: CrashHistory = NO_CRASHES;
  /** Crashes of epochs of one upgrade. */
  readonly #byUpgrade = new Map<string, { readonly crashes: number; readonly before: number | undefined }>();
  /** Set when the budget is used up: nothing serves. */
  exhausted = false;
  total = 0;

  constructor(context: KeeperContext) {
    this.#context = context;
  }

  watch(epoch: Epoch): void {
    const crashed = () => !epoch.ending && !this.#context.signal.aborted;
    // What connects to its sockets from now on would wait for nobody and be reset: not a millisecond later than need be.
    void epoch.closing.then(() => {
      const { registry, kept, log } = this.#context;
      if (epoch.meta.hotRestart !== false || !crashed() || registry.serving() !== epoch || migratesRequests()) return;
      silenceKept(kept);
      log('info', 'kept sockets silent', { epoch: epoch.number });
    });
    void epoch.gone.then(() => {
      if (crashed()) this.#onGone(epoch);
    });
  }

  #onGone(epoch: Epoch): void {
    const { send, log, now, exclusive, registry } = this.#context;
    this.total++;
    const wasServing = registry.serving() === epoch;
    log('error', 'epoch crashed', {
      epoch: epoch.number,
      version: epoch.meta.version,
      serving: wasServing,
      tail: epoch.folder.logTail(3),
    });
    send({ type: 'crashed', epoch: epoch.number, at: now() });
    // An old epoch's drain goes on: its witnesses now say zero, and the verdict follows.
    if (!wasServing) return;
    epoch.setState('crashed');
    announceEpochs(this.#context);
    exclusive
      .run(() => this.#relaunch(epoch))
      .catch((error: unknown) => log('error', 'relaunch failed', { epoch: epoch.number, error: String(error) }));
  }

  async #relaunch(crashed: Epoch): Promise<void> {
    const { registry, kept, log, signal, send, now } = this.#context;
    crashed.release();
    registry.remove(crashed);
    const upgradeId = crashed.meta.createdBy;
    for (;;) {
      // An upgrade that was under way has put another one in its place, or the peer has: two that accept would share the connections.
      if (registry.serving() || this.#context.standing.facts.handedTo) return announceEpochs(this.#context);
      const decision = onCrash(this.#history, now());
      this.#history = decision.history;
      if (!decision.relaunch) {
        this.exhausted = true;
        kept.closeAll(); // nobody will accept: refuse at once rather than let clients hang in a backlog
        throw new SluiceError(
          'RESTART_BUDGET',
          `expected Envoy to stay up, found ${this.#history.crashes} crashes; gave up`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, decision.delayMs));
      signal.throwIfAborted();
      if (this.#context.standing.facts.handedTo) continue;
      const { source, rollback } = this.#source(crashed);
      try {
        const { epoch, independent } = await this.#start(crashed, source, !rollback);
        log('info', 'relaunched', { epoch: epoch.number, version: epoch.meta.version, after: crashed.number });
        send({ type: 'crashed', epoch: crashed.number, at: now(), relaunchedAs: epoch.number });
        if (rollback && upgradeId !== undefined) {
          const message = `expected ${crashed.meta.version} to stay up, found it crashed ${CRASHES_BEFORE_ROLLBACK} times; ${epoch.meta.version} serves again`;
          send({
            type: 'failed',
            upgradeId,
            code: 'SLUICE_EPOCH_DIED',
            message,
            servingEpoch: epoch.number,
            rolledBack: true,
          });
        }
        announceEpochs(this.#context);
        // One that dies in these two seconds is a crash of its own, which `watch` answers.
        await independent.catch((error: unknown) => log('warn', 'handover not finished', { error: String(error) }));
        if (registry.serving() !== epoch) return;
        await keepListeners(this.#context, epoch);
        return;
      } catch (error) {
        log('error', 'relaunch did not serve', { after: crashed.number, error: String(error) });
      }
    }
  }

  /** A fresh epoch in the place of the crashed one: on the kept sockets where hot restart can pass them. */
  async #start(crashed: Epoch, source: Epoch, sameUpgrade: boolean) {
    const { kept, config } = this.#context;
    const { createdBy, concurrency, baseId, restartEpoch, hotRestart } = crashed.meta;
    const passable = hotRestart !== false;
    const predecessor: Predecessor =
      passable && kept.size > 0 ? { kind: 'kept', number: crashed.number } : { kind: 'none' };
    const known = config.hotRestart && (await probe(source.meta.binary)).wire === 'known';
    const plan = await planEpoch(this.#context, {
      binary: source.meta.binary,
      bootstrap: source.meta.bootstrap,
      concurrency,
      line: (epoch) =>
        predecessor.kind === 'kept'
          ? { baseId, restartEpoch: restartEpoch + 1, hotRestart: true }
          : { baseId: passable ? baseId : derivedBaseId(baseId, epoch), restartEpoch: 0, hotRestart: known },
      ...(createdBy !== undefined && sameUpgrade && { upgradeId: createdBy }),
    });
    const up = await bring(this.#context, {
      plan,
      start: (options) => bringUp({ ...options, predecessor }),
      watch: (epoch) => this.watch(epoch),
    });
    // In one group with the new one's: a share of the connections would come to sockets that nobody accepts on.
    if (!passable) kept.closeAll();
    return up;
  }

  /** What to start: the same again, or after repeated crashes of an upgrade's new version the one it replaced. */
  #source(crashed: Epoch): { source: Epoch; rollback: boolean } {
    const { createdBy, parent } = crashed.meta;
    if (createdBy === undefined) return { source: crashed, rollback: false };
    const { crashes, before } = this.#byUpgrade.get(createdBy) ?? { crashes: 0, before: parent };
    // A relaunched epoch has no parent: the version from before is that of the first one's.
    this.#byUpgrade.set(createdBy, { crashes: crashes + 1, before });
    const source = before === undefined ? undefined : this.#context.registry.get(before);
    return source && crashes >= CRASHES_BEFORE_ROLLBACK
      ? { source, rollback: true }
      : { source: crashed, rollback: false };
  }
}
