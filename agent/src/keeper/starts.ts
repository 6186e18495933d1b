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

/** The starts of new epochs that are under way or wait, one after the other. */
export class Starts {
  readonly #context: FrontContext;
  readonly #aborts = new Map<string, AbortController>();

  constructor(context: FrontContext) {
    this.#context = context;
  }

  /** On failure `failed` is sent, with what serves now. Never throws. */
  async run(upgradeId: string, start: (aborted: AbortSignal) => Promise<void>): Promise<void> {
    const { exclusive, log, send, registry } = this.#context;
    const abort = new AbortController();
    this.#aborts.set(upgradeId, abort);
    try {
      await exclusive.run(async () => {
        abort.signal.throwIfAborted();
        await start(abort.signal);
      });
    } catch (thrown) {
      const { code, message } = toSluiceError(thrown);
      log('error', 'upgrade failed', { upgradeId, code, error: message });
      const servingEpoch = registry.serving()?.number ?? -1;
      send({ type: 'failed', upgradeId, code: `SLUICE_${code}`, message, servingEpoch, rolledBack: false });
      announceEpochs(this.#context);
    } finally {
      this.#aborts.delete(upgradeId);
    }
  }

  /** Gives up a start that does not serve yet. Returns whether there was one. */
  abort(upgradeId: string): boolean {
    const abort = this.#aborts.get(upgradeId);
    abort?.abort(new SluiceError('ABORTED', 'the upgrade was aborted'));
    return abort !== undefined;
  }

  /** Gives up every start that is under way; resolves when none is. */
  async settle(): Promise<void> {
    for (const upgradeId of this.#aborts.keys()) this.abort(upgradeId);
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
