import { randomBytes } from 'node:crypto';
import {
  completePolicy,
  DEFAULT_POLICY,
  type DrainPolicy,
  isTerminal,
  type RecordEntry,
  SluiceError,
  toSluiceError,
} from '@sluice/contract';
import type { Agents } from '../link/agents.ts';
import type { Log } from '../log.ts';
import type { Store } from '../store/store.ts';
import { Adoptions } from './adoptions.ts';
import { type OrderSink, runCommand } from './commands.ts';
import { firstShare, fleetDrains, fleetShares } from './fleet.ts';
import { nextWake, step } from './machine.ts';
import { type Bounds, DEFAULT_BOUNDS, type UpgradeEvent, type UpgradeState, type UpgradeWish } from './state.ts';
import { Verbs } from './verbs.ts';

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
  /** What operators may ask of an upgrade. */
  readonly verbs: Verbs = new Verbs(this);
  /** Drains and take-overs that agents began by themselves. */
  readonly adoptions: Adoptions;
  #closed = false;
  #sharing: NodeJS.Timeout | undefined;

  constructor(options: DriverOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#bounds = options.bounds ?? DEFAULT_BOUNDS;
    this.adoptions = new Adoptions({
      agents: options.agents,
      policy: options.policy ?? DEFAULT_POLICY,
      now: this.#now,
      newId: (now) => this.#newId(now),
      stored: async (id) => (await options.store.upgrade(id)) !== undefined,
      settled: (proxy, oldEpoch, id) => this.#closed || this.owner(proxy, id ?? '', oldEpoch) !== undefined,
      insert: (state, first) => this.#insert(state, first),
      owner: (proxy, id, oldEpoch) => this.owner(proxy, id, oldEpoch),
      event: (id, event) => this.event(id, event),
    });
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

  /** Rejects with UPGRADE_CONFLICT where an upgrade of `wish.id` exists. */
  async create(wish: UpgradeWish): Promise<UpgradeState> {
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
    await this.#insert(state, { phase: 'Idle', event: 'created', text });
    await this.#options.store.prune(wish.proxy, this.#options.keep ?? 100);
    this.#arm(state.id);
    await this.giveTurns(wish.proxy);
    return this.#live.get(state.id)?.state ?? state;
  }

  /** Stores a new upgrade with the first entry of its record, and runs it from here on. */
  async #insert(state: UpgradeState, first: Pick<RecordEntry, 'phase' | 'event' | 'text'>): Promise<void> {
    const entries = this.#entries(state, 0, [first]);
    const { version } = await this.#options.store.insertUpgrade(state, entries);
    this.#live.set(state.id, { state, version, seq: entries.length, queue: Promise.resolve() });
    this.#announce(state, entries);
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
    for (const epoch of epochs) if (epoch.state === 'draining') await this.adoptions.draining(proxy, slot, epoch);
    const ids = [...this.#live.values()].filter((one) => one.state.proxy === proxy).map((one) => one.state.id);
    for (const id of ids) await this.event(id, { type: 'epochs', slot, epochs, hello });
    await this.giveTurns(proxy);
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

  #newId(now: number): string {
    return `${now.toString(36)}-${randomBytes(4).toString('hex')}`;
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
