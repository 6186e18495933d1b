import {
  type CheckResult,
  type DrainPolicy,
  type MethodName,
  SluiceError,
  toSluiceError,
  type UpgradeTarget,
} from '@sluice/contract';
import type { AnyEpoch } from '../epochs/live-epoch.ts';
import { announceEpochs, type FrontContext } from './front.ts';

export interface Checked {
  readonly ok: boolean;
  readonly checks: readonly CheckResult[];
  readonly from?: string;
  readonly to?: string;
  readonly method?: MethodName;
}

export interface UpgradeRequest {
  readonly upgradeId: string;
  readonly target: UpgradeTarget;
  readonly policy: DrainPolicy;
}

const MAX_FAILED = 100;

/** The starts of new epochs that are under way or wait, one after the other. */
export class Starts {
  readonly #context: FrontContext;
  readonly #running = new Map<string, { readonly abort: AbortController; readonly done: Promise<void> }>();
  /** The last ones that failed: what is asked again gets the same answer, and no second try. */
  readonly #failed = new Map<string, SluiceError>();

  constructor(context: FrontContext) {
    this.#context = context;
  }

  /**
   * On failure `failed` is sent, with what serves now. Never throws. One that is under way is joined; one that failed fails again in
   * the same way: a controller that has not heard of it asks once more, and what failed while it was away must not serve later.
   */
  run(upgradeId: string, start: (aborted: AbortSignal) => Promise<void>): Promise<void> {
    const running = this.#running.get(upgradeId);
    if (running !== undefined) return running.done;
    const abort = new AbortController();
    const done = this.#run(upgradeId, start, abort.signal).finally(() => this.#running.delete(upgradeId));
    this.#running.set(upgradeId, { abort, done });
    return done;
  }

  async #run(upgradeId: string, start: (aborted: AbortSignal) => Promise<void>, aborted: AbortSignal): Promise<void> {
    const { exclusive, log, send, registry } = this.#context;
    try {
      const failed = this.#failed.get(upgradeId);
      if (failed !== undefined) throw failed;
      await exclusive.run(async () => {
        aborted.throwIfAborted();
        await start(aborted);
      });
    } catch (thrown) {
      const error = toSluiceError(thrown);
      const { code, message } = error;
      this.#failed.set(upgradeId, error);
      const [oldest] = this.#failed.keys();
      if (this.#failed.size > MAX_FAILED && oldest !== undefined) this.#failed.delete(oldest);
      log('error', 'upgrade failed', { upgradeId, code, error: message });
      const servingEpoch = registry.serving()?.number ?? -1;
      send({ type: 'failed', upgradeId, code: `SLUICE_${code}`, message, servingEpoch, rolledBack: false });
      announceEpochs(this.#context);
    }
  }

  /** Gives up a start that does not serve yet. Returns whether there was one. */
  abort(upgradeId: string): boolean {
    const running = this.#running.get(upgradeId);
    running?.abort.abort(new SluiceError('ABORTED', 'the upgrade was aborted'));
    return running !== undefined;
  }

  /** Gives up every start that is under way; resolves when none is. */
  async settle(): Promise<void> {
    for (const upgradeId of this.#running.keys()) this.abort(upgradeId);
    await this.#context.exclusive.run(async () => {});
  }
}

/** Tells that `epoch` serves in the place of `old`, since `at`. */
export function reportServing(
  context: FrontContext,
  upgradeId: string,
  { epoch, old, at }: { readonly epoch: AnyEpoch; readonly old: AnyEpoch | undefined; readonly at: number },
): void {
  context.send({
    type: 'serving',
    upgradeId,
    epoch: epoch.number,
    oldEpoch: old?.number ?? epoch.meta.parent ?? -1,
    from: old?.meta.version ?? '',
    to: epoch.meta.version,
    at,
    method: epoch.status(context.config.slot).method ?? 'hot-restart',
  });
  announceEpochs(context);
}
