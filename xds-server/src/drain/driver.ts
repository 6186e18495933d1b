import { randomBytes } from 'node:crypto';
import {
  type AgentMessage,
  completePolicy,
  DEFAULT_POLICY,
  type DrainPolicy,
  type EpochStatus,
  isTerminal,
  type RecordEntry,
  SluiceError,
  toSluiceError,
  type UpgradeTarget,
} from '@sluice/contract';
import type { Agents } from '../link/agents.ts';
import type { Log } from '../log.ts';
import type { Store } from '../store/store.ts';
import { adoptedUpgrade, handedOver } from './adopt.ts';
import { type OrderSink, runCommand } from './commands.ts';
import { firstShare, fleetDrains, fleetShares } from './fleet.ts';
import { nextWake, step } from './machine.ts';
import { type Bounds, DEFAULT_BOUNDS, type UpgradeEvent, type UpgradeState } from './state.ts';
import { Turns } from './turns.ts';

export interface DriverOptions {
  readonly store: Store;
  readonly agents: Agents;
  readonly orders: OrderSink;
  readonly log: Log;
  readonly now?: () => number;
  readonly bounds?: Bounds;
  /** For a drain that an agent began by itself. */
  readonly policy?: DrainPolicy;
  /** Ended upgrades kept per proxy. */
  readonly keep?: number;
  readonly onUpgrade?: (state: UpgradeState) => void;
  readonly onRecord?: (entry: RecordEntry, state: UpgradeState) => void;
}

interface Live {
  state: UpgradeState;
  version: string;
  seq: number;
  /** Events of one upgrade are handled one after the other. */
  queue: Promise<void>;
  timer?: NodeJS.Timeout;
}

/** Not begun, for one proxy at once. A script that proposes in a loop meets this bound. */
const MAX_WAITING = 8;
const SHARE_EVERY_MS = 1_000;
const MAX_TIMER_MS = 2_147_483_647;

/** Runs the machine of every upgrade that is not over: stores each step before its commands go out. */
export class Driver {
  readonly #options: DriverOptions;
  readonly #now: () => number;
  readonly #bounds: Bounds;
  readonly #live = new Map<string, Live>();
  readonly #adopting = new Turns();
  readonly #rollbacks = new Map<string, Promise<UpgradeState>>();
  #closed = false;
  #sharing: NodeJS.Timeout | undefined;

  constructor(options: DriverOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#bounds = options.bounds ?? DEFAULT_BOUNDS;
  }

  /** Takes up what an earlier controller left. */
  async start(): Promise<void> {
    const { store } = this.#options;
    for (const { state, version } of (await store.upgrades()).slice().reverse()) {
      if (isTerminal(state.phase) && !isLeftover(state)) continue;
      const seq = (await store.record(state.id)).length;
      this.#live.set(state.id, { state: complete(state), version, seq, queue: Promise.resolve() });
    }
    for (const id of [...this.#live.keys()]) {
      await this.#resumeRollback(id);
      await this.event(id, { type: 'resumed' });
    }
  }

  /** A rollback concerns two upgrades, which are stored one after the other: what was between them is made good. */
  async #resumeRollback(id: string): Promise<void> {
    const state = this.#live.get(id)?.state;
    if (state?.rollbackOf !== undefined) await this.event(state.rollbackOf, { type: 'rollback', rollbackId: id });
    const back = state?.rollbackId === undefined ? undefined : await this.find(state.rollbackId);
    if (back?.epoch !== undefined) await this.event(id, { type: 'rollbackServing' });
  }

  /** Under way, oldest first. */
  active(proxy?: string): UpgradeState[] {
    return [...this.#live.values()]
      .map((one) => one.state)
      .filter((state) => !isTerminal(state.phase) && (proxy === undefined || state.proxy === proxy))
      .sort((a, b) => a.createdAt - b.createdAt);
  }

  /** The state of an upgrade that is not over, verdicts included. */
  current(id: string): UpgradeState | undefined {
    return this.#live.get(id)?.state;
  }

  /** The newest known state, verdicts included. undefined: unknown. */
  async find(id: string): Promise<UpgradeState | undefined> {
    const live = this.#live.get(id)?.state;
    if (live !== undefined) return live;
    const stored = await this.#options.store.upgrade(id);
    return stored && complete(stored.state);
  }

  /** `id`: of one whose order may come twice; rejects with UPGRADE_CONFLICT when it exists. */
  async create(wish: {
    readonly id?: string | undefined;
    readonly proxy: string;
    readonly target: UpgradeTarget;
    readonly policy: DrainPolicy;
    readonly slot?: string | undefined;
    readonly rollbackOf?: string | undefined;
    readonly reason?: string | undefined;
  }): Promise<UpgradeState> {
    const waiting = this.active(wish.proxy).filter((state) => state.phase === 'Idle').length;
    if (waiting >= MAX_WAITING) {
      throw new SluiceError('UPGRADE_CONFLICT', `${waiting} upgrades of ${wish.proxy} wait for their turn already`);
    }
    const now = this.#now();
    const state: UpgradeState = {
      id: wish.id ?? this.#newId(now),
      proxy: wish.proxy,
      target: wish.target,
      policy: wish.policy,
      createdAt: now,
      phase: 'Idle',
      phaseSince: now,
      reason: wish.reason ?? 'waits for its turn',
      attempts: 0,
      ...(wish.slot === undefined ? {} : { slot: wish.slot }),
      ...(wish.rollbackOf === undefined ? {} : { rollbackOf: wish.rollbackOf }),
    };
    const text = `upgrade of ${wish.proxy} to ${wish.target.to}${wish.reason === undefined ? '' : `: ${wish.reason}`}`;
    const entries = this.#entries(state, 0, [{ phase: 'Idle', event: 'created', text }]);
    const { version } = await this.#options.store.insertUpgrade(state, entries);
    this.#live.set(state.id, { state, version, seq: 1, queue: Promise.resolve() });
    this.#announce(state, entries);
    await this.#options.store.prune(wish.proxy, this.#options.keep ?? 100);
    this.#arm(state.id);
    await this.giveTurns(wish.proxy);
    return this.#live.get(state.id)?.state ?? state;
  }

  /**
   * Asks for a flip back of an upgrade whose new epoch serves. Repeating it answers with the same upgrade; for one that is
   * over only where `backId` says what it is to be called.
   */
  async rollback(id: string, by: string, backId?: string): Promise<UpgradeState> {
    const running = this.#rollbacks.get(id) ?? this.#rollback(id, by, backId).finally(() => this.#rollbacks.delete(id));
    this.#rollbacks.set(id, running);
    return running;
  }

  async #rollback(id: string, by: string, backId: string | undefined): Promise<UpgradeState> {
    const state = await this.#require(id);
    const known = backId === undefined ? undefined : await this.find(backId);
    if (known !== undefined) return known;
    if (state.rollbackId !== undefined) return this.#require(state.rollbackId);
    if (state.phase === 'Idle' || state.phase === 'Preflight' || state.phase === 'Starting') {
      await this.event(id, { type: 'abort', by });
      return this.#require(id);
    }
    if (state.from === undefined || state.epoch === undefined || state.phase === 'Failed') {
      throw new SluiceError('PHASE_REFUSED', `upgrade ${id} is ${state.phase}: there is nothing to flip back`);
    }
    const back = await this.create({
      id: backId,
      proxy: state.proxy,
      // An agent that does not tell its paths has to know the version by name.
      target: state.fromTarget ?? { to: state.from },
      policy: state.policy,
      slot: state.slot,
      rollbackOf: id,
      reason: `rollback of ${id} by ${by}`,
    });
    await this.event(id, { type: 'rollback', rollbackId: back.id });
    return back;
  }

  async abort(id: string, by: string): Promise<UpgradeState> {
    const { phase } = await this.#require(id);
    if (!['Idle', 'Preflight', 'Starting', 'Failed'].includes(phase)) {
      throw new SluiceError('PHASE_REFUSED', `upgrade ${id} is ${phase}: its new epoch serves already`, {
        hint: 'use rollback to flip back',
      });
    }
    await this.event(id, { type: 'abort', by });
    return this.#require(id);
  }

  /** A reset with protected connections left. */
  async override(id: string, by: string, reason: string): Promise<UpgradeState> {
    const { phase } = await this.#require(id);
    if (!['Draining', 'SafeToReset', 'Resetting'].includes(phase)) {
      throw new SluiceError('PHASE_REFUSED', `upgrade ${id} is ${phase}: a reset is possible from Draining on`);
    }
    await this.event(id, { type: 'override', by, reason });
    return this.#require(id);
  }

  /** The bound of Starting runs only while its agent is there. */
  agentGone(proxy: string): void {
    for (const state of this.active(proxy)) this.#arm(state.id);
  }

  /** The upgrade that an agent's message about an old epoch belongs to. An agent speaks only for its own proxy. */
  owner(proxy: string, upgradeId: string, oldEpoch?: number): string | undefined {
    if (this.#live.get(upgradeId)?.state.proxy === proxy) return upgradeId;
    if (oldEpoch === undefined) return undefined;
    // An agent that was restarted may not know the upgrade's id; the epoch tells it, for no number is used twice.
    const live = [...this.#live.values()].find(({ state }) => state.proxy === proxy && state.oldEpoch === oldEpoch);
    return live?.state.id;
  }

  /** An agent's list of its epochs is a new one; `hello`: the first of a new link. */
  async epochsChanged(proxy: string, slot: string, hello: boolean): Promise<void> {
    const epochs = this.#options.agents.entry(proxy, slot)?.epochs ?? [];
    for (const epoch of epochs) if (epoch.state === 'draining') await this.#adopt(proxy, slot, epoch);
    const ids = [...this.#live.values()].filter((one) => one.state.proxy === proxy).map((one) => one.state.id);
    for (const id of ids) await this.event(id, { type: 'epochs', slot, epochs, hello });
    await this.giveTurns(proxy);
  }

  /** Resolves when this drain is not being taken over any more. */
  async adopted(proxy: string, oldEpoch: number): Promise<void> {
    await this.#adopting.run(JSON.stringify([proxy, oldEpoch]), async () => {});
  }

  orderAcked(proxy: string, epoch: number, order: { upgradeId: string; version: number }, nack?: string): void {
    const live = this.#live.get(order.upgradeId);
    if (live?.state.proxy !== proxy || live.state.oldEpoch !== epoch) return;
    const { version } = order;
    void this.event(
      order.upgradeId,
      nack === undefined ? { type: 'orderAcked', version } : { type: 'orderNacked', version, error: nack },
    );
  }

  /** Lets the oldest waiting upgrade of a proxy begin, unless one is on its way to serve. */
  async giveTurns(proxy: string): Promise<void> {
    const active = this.active(proxy);
    if (active.some((state) => state.phase === 'Preflight' || state.phase === 'Starting')) return;
    const first = active.find((state) => state.phase === 'Idle');
    if (first === undefined) return;
    const slot = this.#options.agents.choose(proxy, first.target.to, first.slot);
    if (slot === undefined) return;
    const { binary, bootstrap } = this.#options.agents.serving(proxy) ?? {};
    const fromTarget =
      binary === undefined ? {} : { fromTarget: { to: binary, ...(bootstrap === undefined ? {} : { bootstrap }) } };
    await this.event(first.id, { type: 'turn', slot, ...fromTarget });
  }

  /** Handles one event. Resolves when its step is stored and its commands are out. */
  event(id: string, event: UpgradeEvent): Promise<void> {
    const live = this.#live.get(id);
    if (live === undefined || this.#closed) return Promise.resolve();
    live.queue = live.queue.then(() =>
      this.#handle(live, event).catch((thrown) => {
        const error = toSluiceError(thrown);
        this.#options.log.error({ upgrade: id, event: event.type, err: error }, 'upgrade event failed');
      }),
    );
    return live.queue;
  }

  /** Stops without a further step; what is stored goes on with the next controller. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#sharing);
    for (const live of this.#live.values()) clearTimeout(live.timer);
    await Promise.all([...this.#live.values()].map((live) => live.queue));
  }

  async #handle(live: Live, event: UpgradeEvent): Promise<void> {
    const { agents, store } = this.#options;
    const { proxy } = live.state;
    const before = live.state;
    const result = step(
      before,
      event,
      {
        now: this.#now(),
        connected: agents.connectedSlots(proxy),
        slotOf: (epoch) => agents.slotOf(proxy, epoch),
        share: () => firstShare(fleetDrains(this.active()), before),
      },
      this.#bounds,
    );
    const entries = this.#entries(result.state, live.seq, result.entries);
    // A verdict that changes nothing is news for a reader only: the agent says it again after a restart.
    const passing = event.type === 'verdict' && entries.length === 0 && result.commands.length === 0;
    if (!passing && result.state !== before) {
      const { version } = await store.updateUpgrade(result.state, live.version, entries);
      live.version = version;
      live.seq += entries.length;
    }
    live.state = result.state;
    for (const command of result.commands) runCommand(this.#options, result.state, command);
    if (result.state !== before) this.#announce(result.state, entries);
    if (before.phase !== result.state.phase) this.#phaseChanged(result.state);
    if (result.state.policy.pacing.scope === 'fleet') this.#shareSoon();
    if (isTerminal(result.state.phase) && !isLeftover(result.state)) {
      clearTimeout(live.timer);
      this.#live.delete(result.state.id);
    }
    this.#arm(result.state.id);
  }

  /** The drains of a fleet share their rate anew, at most once a second. */
  #shareSoon(): void {
    if (this.#closed) return;
    this.#sharing ??= setTimeout(() => {
      this.#sharing = undefined;
      for (const [id, perSecond] of fleetShares(fleetDrains(this.active())))
        void this.event(id, { type: 'share', perSecond });
    }, SHARE_EVERY_MS);
  }

  #phaseChanged(state: UpgradeState): void {
    if (state.phase === 'Draining' && state.rollbackOf !== undefined) {
      void this.event(state.rollbackOf, { type: 'rollbackServing' });
    }
    if (state.phase !== 'Preflight' && state.phase !== 'Starting')
      queueMicrotask(() => void this.giveTurns(state.proxy));
  }

  /**
   * Takes over a drain that no upgrade knows of: begun by an agent while no controller was there, or known to one whose
   * state is lost. Without this its old epoch would wait for a reset that nobody authorises.
   */
  async #adopt(proxy: string, slot: string, old: EpochStatus): Promise<void> {
    await this.#adopted(proxy, old.epoch, old.upgradeId, async () => {
      const now = this.#now();
      // Of another slot's epochs an older one may be listed still, whose agent is gone.
      const newest = this.#options.agents.serving(proxy);
      const serving = newest !== undefined && newest.epoch > old.epoch ? newest : undefined;
      const taken = old.upgradeId === undefined || (await this.#options.store.upgrade(old.upgradeId)) !== undefined;
      const id = taken ? this.#newId(now) : (old.upgradeId as string);
      return adoptedUpgrade({ id, proxy, slot, old, serving, policy: this.#options.policy ?? DEFAULT_POLICY, now });
    });
  }

  /**
   * An agent took over from the one of the other slot by itself. Whichever of the two is heard first, there is one upgrade
   * of it, under the id that both know.
   */
  async handedOver(proxy: string, slot: string, told: Extract<AgentMessage, { type: 'serving' }>): Promise<void> {
    const { upgradeId, oldEpoch, oldSlot } = told;
    if (oldSlot === undefined) return;
    await this.#adopted(proxy, oldEpoch, upgradeId, async () => {
      if ((await this.#options.store.upgrade(upgradeId)) !== undefined) return undefined;
      const policy = this.#options.policy ?? DEFAULT_POLICY;
      const old = this.#old(proxy, oldSlot, oldEpoch);
      return handedOver({ proxy, slot, told: { ...told, oldSlot }, old, policy, now: this.#now() });
    });
    const id = this.owner(proxy, upgradeId, oldEpoch);
    if (id !== undefined) await this.event(id, told);
  }

  #old(proxy: string, slot: string, epoch: number): EpochStatus | undefined {
    return this.#options.agents.entry(proxy, slot)?.epochs.find((one) => one.epoch === epoch);
  }

  /** One at a time for an old epoch: the second caller finds what the first has made. */
  #adopted(
    proxy: string,
    oldEpoch: number,
    upgradeId: string | undefined,
    make: () => Promise<UpgradeState | undefined>,
  ): Promise<void> {
    return this.#adopting.run(JSON.stringify([proxy, oldEpoch]), async () => {
      const known = [...this.#live.values()].some(
        ({ state }) => state.proxy === proxy && (state.oldEpoch === oldEpoch || state.id === upgradeId),
      );
      const state = known || this.#closed ? undefined : await make();
      if (state === undefined) return;
      const entries = this.#entries(state, 0, [{ phase: 'Draining', event: 'adopted', text: state.reason }]);
      const { version } = await this.#options.store.insertUpgrade(state, entries);
      this.#live.set(state.id, { state, version, seq: entries.length, queue: Promise.resolve() });
      this.#announce(state, entries);
      await this.event(state.id, { type: 'resumed' });
      const verdict = this.#old(proxy, state.oldSlot ?? '', oldEpoch)?.verdict;
      if (verdict !== undefined) await this.event(state.id, { type: 'verdict', epoch: oldEpoch, verdict });
    });
  }

  #newId(now: number): string {
    return `${now.toString(36)}-${randomBytes(4).toString('hex')}`;
  }

  async #require(id: string): Promise<UpgradeState> {
    const state = await this.find(id);
    if (state === undefined) throw new SluiceError('UPGRADE_UNKNOWN', `expected a known upgrade, found ${id}`);
    return state;
  }

  #entries(state: UpgradeState, seq: number, entries: readonly Pick<RecordEntry, 'phase' | 'event' | 'text'>[]) {
    const at = this.#now();
    return entries.map(
      (one, n): RecordEntry => ({ upgradeId: state.id, proxy: state.proxy, seq: seq + n, at, ...one }),
    );
  }

  #announce(state: UpgradeState, entries: readonly RecordEntry[]): void {
    for (const { text, event, phase } of entries) {
      this.#options.log.info({ upgrade: state.id, proxy: state.proxy, event, phase }, text);
    }
    this.#options.onUpgrade?.(state);
    for (const entry of entries) this.#options.onRecord?.(entry, state);
  }

  /** One timer an upgrade, for the machine's next own moment. */
  #arm(id: string): void {
    const live = this.#live.get(id);
    if (live === undefined) return;
    clearTimeout(live.timer);
    if (this.#closed) return;
    const at = nextWake(live.state, this.#options.agents.connectedSlots(live.state.proxy), this.#bounds);
    if (at === undefined) return;
    const wait = Math.min(MAX_TIMER_MS, Math.max(0, at - this.#now()));
    live.timer = setTimeout(() => void this.event(id, { type: 'tick' }), wait);
  }
}

/** A state as an older version of us stored it. */
function complete(state: UpgradeState): UpgradeState {
  return { ...state, policy: completePolicy(state.policy) };
}

/** Ended as Failed or RolledBack while an old epoch of it still drains. */
function isLeftover(state: UpgradeState): boolean {
  return state.phase !== 'Done' && state.oldEpoch !== undefined && state.resetAt === undefined;
}
