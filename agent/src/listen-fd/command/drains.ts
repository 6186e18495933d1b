import { completePolicy, type DrainOrder, type DrainPolicy, type Verdict } from '@sluice/contract';
import type { ResetReport } from '../../epochs/run-folder.ts';
import { weighLingering } from '../../keeper/budget.ts';
import {
  noteDrain,
  type OpenDrain,
  OWN_ORDER_AFTER_MS,
  openDrain,
  ownOrder,
  takeOrder,
  tellVerdict,
} from '../../keeper/drain-parts.ts';
import { EndedOutbox } from '../../keeper/ended.ts';
import { announceEpochs } from '../../keeper/front.ts';
import { resetEpoch } from '../../keeper/resets.ts';
import type { CommandContext } from './context.ts';
import type { CommandEpoch } from './epoch.ts';

interface Draining extends OpenDrain {
  readonly ended: EndedOutbox;
  readonly ownOrder: NodeJS.Timeout | undefined;
}

/**
 * The old epochs: their verdicts by the kernel alone, and their end. There is no lever from outside: the proxy's own soft
 * stop has told its connections to leave, so an order is in force from the moment it comes.
 */
export class Drains {
  readonly #context: CommandContext;
  readonly #draining = new Map<number, Draining>();

  constructor(context: CommandContext) {
    this.#context = context;
  }

  /** `old` accepts no more. Idempotent; also goes on with a drain that an earlier agent began. */
  begin(old: CommandEpoch, upgradeId: string, given: DrainPolicy, alone = this.#context.alone): void {
    if (old.drain) return;
    const { now } = this.#context;
    const policy = completePolicy(given);
    noteDrain(old, upgradeId, policy, now());
    const ended = new EndedOutbox(this.#context, old, upgradeId);
    const open = openDrain(this.#context, old, {
      policy,
      onVerdict: (verdict) => this.#onVerdict(old, verdict, alone),
      onEnded: (items, dropped) => ended.add(items, dropped),
      begun: ended.begun(),
    });
    void old.gone.then(() => open.watch.poke());
    const { order, orderAppliedAt = now() } = old.meta;
    if (order) open.watch.applied(order, orderAppliedAt);
    const give = () => this.apply(ownOrder(old, upgradeId, policy, now()), 'local');
    const timer = order ? undefined : setTimeout(give, alone ? 0 : OWN_ORDER_AFTER_MS);
    this.#draining.set(old.number, { ...open, ended, ownOrder: timer });
    announceEpochs(this.#context);
  }

  apply(order: DrainOrder, via: 'link' | 'local'): void {
    const old = this.#context.registry.get(order.epoch);
    takeOrder(this.#context, old, { given: order, via }, (complete, at) => {
      old?.drain?.applied(complete, at);
      old?.drain?.foretell();
    });
  }

  /** Judged once more, then ended; see resetEpoch. */
  async reset(
    upgradeId: string,
    epoch: number,
    override?: { readonly by: string; readonly reason: string },
    why?: string,
  ): Promise<ResetReport> {
    return resetEpoch(this.#context, { upgradeId, epoch, override, why }, (old) => {
      this.#draining.get(epoch)?.close(false);
      this.#clear(old);
    });
  }

  /** Lets go of every drain without ending it. */
  stop(): void {
    for (const epoch of this.#context.registry.all()) this.#clear(epoch);
  }

  #onVerdict(old: CommandEpoch, verdict: Verdict, alone: boolean): void {
    if (!tellVerdict(this.#context, old, verdict)) return;
    weighLingering(this.#context);
    if (!alone || !verdict.safe) return;
    const { log } = this.#context;
    this.reset(old.meta.endedBy ?? '', old.number).catch((e) => log('warn', 'reset refused', { error: String(e) }));
  }

  #clear(old: CommandEpoch): void {
    const { ownOrder, ended } = this.#draining.get(old.number) ?? {};
    clearTimeout(ownOrder);
    ended?.flush();
    this.#draining.delete(old.number);
    old.drain?.stop();
  }
}
