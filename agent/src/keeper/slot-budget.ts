import type { Lingering } from '../epochs/cost.ts';
import { lingeringOf, weighLingering } from './budget.ts';
import type { FrontContext } from './front.ts';

/** As often as an epoch's own cost is looked at. */
const ASK_EVERY_MS = 5_000;

/**
 * The memory budget where the proxy's lingering epochs may be in two slots: what this agent's hold is weighed with what
 * the other one's do. Asked only while an epoch here has a budget. A peer that does not answer counts as nothing.
 */
export class SlotBudget {
  readonly #context: Pick<FrontContext, 'registry' | 'now' | 'log'>;
  readonly #ask: (() => Promise<readonly Lingering[]>) | undefined;
  #askedAt = Number.NEGATIVE_INFINITY;
  #again: NodeJS.Timeout | undefined;
  #stopped = false;

  /** `ask`: what the peer's lingering epochs hold; undefined: there are no slots. */
  constructor(
    context: Pick<FrontContext, 'registry' | 'now' | 'log'>,
    ask: (() => Promise<readonly Lingering[]>) | undefined,
  ) {
    this.#context = context;
    this.#ask = ask;
  }

  /**
   * To be called with each verdict. With slots only a fresh answer decides: by an old one an epoch could be given up for what
   * has ended since.
   */
  weigh(): void {
    const ask = lingeringOf(this.#context).some(({ budgetMiB }) => budgetMiB > 0) ? this.#ask : undefined;
    if (ask === undefined) weighLingering(this.#context);
    else if (performance.now() - this.#askedAt >= ASK_EVERY_MS) void this.#askAndWeigh(ask);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#again);
  }

  async #askAndWeigh(ask: () => Promise<readonly Lingering[]>): Promise<void> {
    if (this.#stopped) return;
    this.#askedAt = performance.now();
    const others = await ask().catch((error: unknown): Lingering[] => {
      this.#context.log('debug', 'the peer does not tell what its lingering epochs hold', { error: String(error) });
      return [];
    });
    if (this.#stopped) return;
    weighLingering(this.#context, others);
    // The peer's grow while nothing happens here.
    clearTimeout(this.#again);
    this.#again = setTimeout(() => this.weigh(), ASK_EVERY_MS);
  }
}
