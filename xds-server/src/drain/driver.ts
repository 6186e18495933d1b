import { DEFAULT_POLICY, type DrainPolicy, type RecordEntry, toSluiceError } from '@sluice/contract';
import type { Agents } from '../link/agents.ts';
import type { Log } from '../log.ts';
import type { Store, Stored } from '../store/store.ts';
import { Adoptions } from './adoptions.ts';
import { type OrderSink, runCommand } from './commands.ts';
import { recordOf } from './entries.ts';
import { Inserts } from './inserts.ts';
import { activeOf, type Live, ownerOf } from './live.ts';
import { step } from './machine.ts';
import { nextTurn } from './next-turn.ts';
import { persist, untilThere } from './persist.ts';
import { Shares } from './shares.ts';
import {
  type Bounds,
  complete,
  DEFAULT_BOUNDS,
  isOver,
  newId,
  type UpgradeEvent,
  type UpgradeState,
  type UpgradeWish,
} from './state.ts';
import { TakeUp } from './take-up.ts';
import { Verbs } from './verbs.ts';
import { wake } from './wake.ts';

export interface DriverOptions {
  readonly store: Store;
  readonly agents: Agents;
  readonly orders: OrderSink;
  readonly log: Log;
  readonly now?: () => number;
  readonly bounds?: Bounds;
  /** For a drain of that proxy that an agent began by itself. */
  readonly policy?: (proxy: string) => DrainPolicy;
  /** Ended upgrades kept per proxy. */
  readonly keep?: number;
  /** Whether this controller runs the upgrades of a proxy; always, where it is alone. After a change `rebalance` is called. */
  readonly owns?: (proxy: string) => boolean;
  readonly onUpgrade?: (state: UpgradeState) => void;
  readonly onRecord?: (entry: RecordEntry, state: UpgradeState) => void;
}

/** So often in a row a step may find that somebody else wrote the upgrade before this one lets it go. */
const MAX_LOST = 3;
const MAX_OVER = 1_000;
/** After a step that failed the machine's next own moment comes no sooner. */
const AGAIN_MS = 5_000;

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
  readonly #shares: Shares;
  readonly #inserts: Inserts;
  /** The last ones that ended here: what is told of their writes comes later. */
  readonly #over = new Set<string>();
  readonly #takeUp: TakeUp;
  readonly #stop = new AbortController();

  constructor(options: DriverOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#bounds = options.bounds ?? DEFAULT_BOUNDS;
    const { store, log } = options;
    this.#takeUp = new TakeUp(
      {
        store,
        log,
        wanted: (state) => this.#wanted(state),
        run: (state, version, seq) => this.#run(state, version, seq),
        find: (id) => this.find(id),
        event: (id, event) => this.event(id, event),
      },
      this.#stop.signal,
    );
    this.#shares = new Shares(
      () => this.active(),
      (id, perSecond) => void this.event(id, { type: 'share', perSecond }),
    );
    this.#inserts = new Inserts(
      {
        store,
        agents: options.agents,
        log,
        now: this.#now,
        keep: options.keep ?? store.keep ?? 100,
        active: (proxy) => this.active(proxy),
        current: (id) => this.current(id),
        // One that is another controller's to run is noticed there.
        stored: (state, version, seq) => {
          if (this.#owns(state.proxy) && !this.#live.has(state.id)) this.#run(state, version, seq);
        },
        announce: (state, entries) => this.#announce(state, entries),
        made: ({ id, proxy }) => {
          this.#arm(id);
          return this.giveTurns(proxy);
        },
        noticed: (stored) => this.noticed(stored),
      },
      this.#stop.signal,
    );
    this.adoptions = new Adoptions({
      agents: options.agents,
      policy: options.policy ?? (() => DEFAULT_POLICY),
      now: this.#now,
      newId,
      // Told once: an agent that hands over while the store is away does not say it again.
      stored: async (id) => (await untilThere(() => store.upgrade(id), log, this.#stop.signal)) !== undefined,
      settled: async (proxy, oldEpoch, id) => {
        await this.#takeUp.settled;
        return !this.#owns(proxy) || this.owner(proxy, id ?? '', oldEpoch) !== undefined;
      },
      insert: (state, first) => untilThere(() => this.#inserts.insert(state, first), log, this.#stop.signal),
      owner: (proxy, id, oldEpoch) => this.owner(proxy, id, oldEpoch),
      event: (id, event) => this.event(id, event),
    });
  }

  /** Takes up what an earlier controller left. Rejects when the store can not be read. */
  start(): Promise<void> {
    return this.#takeUp.start();
  }

  /** It is not known yet which upgrades are under way here. */
  get takesUp(): boolean {
    return this.#takeUp.runs;
  }

  /** Resolved when it is known. */
  get settled(): Promise<void> {
    return this.#takeUp.settled;
  }

  /** Whose the proxies are changed: lets go at once what is not ours any more, takes up what is. */
  rebalance(): Promise<void> {
    for (const live of [...this.#live.values()]) if (!this.#owns(live.state.proxy)) this.#letGo(live);
    return this.#takeUp.again();
  }

  /**
   * An upgrade was written, by whatever controller: one that is this one's to run and is not known here is taken up, one that another
   * controller changed is read again.
   */
  async noticed({ state, version }: Stored): Promise<void> {
    const { id, proxy } = state;
    this.#shares.noticed(state, !this.#owns(proxy));
    await this.#takeUp.settled;
    const live = this.#live.get(id);
    if (live !== undefined) {
      // Behind our own writes: their versions are known then.
      live.queue = live.queue
        .then(() => this.#refresh(live, version))
        .catch((thrown) => this.#failed(live, 'noticed', thrown));
      return live.queue;
    }
    if (!this.#wanted(state) || isOver(state) || this.#over.has(id)) return;
    await this.#takeUp.one(id);
    await this.giveTurns(proxy);
  }

  async #refresh(live: Live, told: string): Promise<void> {
    // Our own writes are told too, each when there may be a newer one already.
    if (live.gone.signal.aborted || live.versions.has(told)) return;
    const stored = await this.#options.store.upgrade(live.state.id);
    if (stored?.version !== live.version) await this.#lost(live, stored, { type: 'resumed' }, 1);
  }

  #failed(live: Live, event: string, thrown: unknown): void {
    if (live.gone.signal.aborted) return;
    this.#options.log.error({ upgrade: live.state.id, event, err: toSluiceError(thrown) }, 'upgrade event failed');
    this.#arm(live.state.id, AGAIN_MS);
  }

  #owns(proxy: string): boolean {
    return !this.#stop.signal.aborted && (this.#options.owns?.(proxy) ?? true);
  }

  #wanted({ id, proxy }: UpgradeState): boolean {
    return this.#owns(proxy) && !this.#live.has(id) && !this.#inserts.has(id);
  }

  #run(state: UpgradeState, version: string, seq: number): void {
    const versions = new Set([version]);
    this.#live.set(state.id, { state, version, versions, seq, queue: Promise.resolve(), gone: new AbortController() });
  }

  /** A proxy that is no more: nobody is left to be ordered anything, and what was stored of it is gone too. */
  forget(proxy: string): void {
    this.#shares.forget(proxy);
    for (const live of [...this.#live.values()])
      if (live.state.proxy === proxy) this.#letGo(live, 'its proxy is no more');
  }

  /** No further step of it is made here; what is stored goes on elsewhere. */
  #letGo({ state, timer, gone }: Live, why = 'another controller runs it'): void {
    clearTimeout(timer);
    gone.abort();
    this.#live.delete(state.id);
    if (state.oldEpoch !== undefined) this.#options.orders.clear(state.proxy, state.oldEpoch);
    this.#options.log.info({ upgrade: state.id, proxy: state.proxy }, `upgrade is let go: ${why}`);
  }

  /** Under way, oldest first. */
  active(proxy?: string): UpgradeState[] {
    return activeOf(this.#live.values(), proxy);
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
  create(wish: UpgradeWish): Promise<UpgradeState> {
    return this.#inserts.create(wish);
  }

  /** The bound of Starting runs only while its agent is there. */
  agentGone(proxy: string): void {
    for (const state of this.active(proxy)) this.#arm(state.id);
  }

  /** The upgrade that an agent's message about an old epoch belongs to. An agent speaks only for its own proxy. */
  owner(proxy: string, upgradeId: string, oldEpoch?: number): string | undefined {
    return ownerOf(this.#live, proxy, upgradeId, oldEpoch);
  }

  /** That Pod of the proxy is gone, and with it all that was under way. */
  async podGone(proxy: string, isGone: (podUid: string) => boolean): Promise<void> {
    await this.#takeUp.settled;
    const gone = [...this.#live.values()].filter(
      ({ state }) => state.proxy === proxy && state.podUid !== undefined && isGone(state.podUid),
    );
    for (const { state } of gone) await this.event(state.id, { type: 'gone', why: 'its Pod was deleted' });
  }

  /** An agent's list of its epochs is a new one; `hello`: the first of a new link. */
  async epochsChanged(proxy: string, slot: string, hello: boolean): Promise<void> {
    const podUid = this.#options.agents.podUid(proxy);
    // Epochs of another Pod of this name have the same numbers.
    if (hello && podUid !== undefined) await this.podGone(proxy, (one) => one !== podUid);
    const epochs = this.#options.agents.entry(proxy, slot)?.epochs ?? [];
    for (const epoch of epochs) if (epoch.state === 'draining') await this.adoptions.draining(proxy, slot, epoch);
    await this.#takeUp.settled;
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
    const next = nextTurn(proxy, this.active(proxy), this.#options.agents);
    if (next !== undefined) await this.event(next.id, next.event);
  }

  /** Handles one event. Resolves when its step is stored and its commands are out. */
  event(id: string, event: UpgradeEvent): Promise<void> {
    const live = this.#live.get(id);
    if (live === undefined || this.#stop.signal.aborted) return Promise.resolve();
    if (event.type === 'verdict') {
      const waits = live.verdict;
      // The list of epochs has the verdict of when it was sent: of two the later one counts.
      if (waits === undefined || event.verdict.at >= waits.verdict.at) live.verdict = event;
      if (waits !== undefined) return live.queue;
    }
    live.queue = live.queue.then(async () => {
      const newest = event.type === 'verdict' ? (live.verdict ?? event) : event;
      if (event.type === 'verdict') live.verdict = undefined;
      await this.#handle(live, newest).catch((thrown) => this.#failed(live, event.type, thrown));
    });
    return live.queue;
  }

  /** Stops without a further step; what is stored goes on with the next controller. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#shares.close();
    for (const live of this.#live.values()) clearTimeout(live.timer);
    await Promise.all([this.#takeUp.settled, ...[...this.#live.values()].map((live) => live.queue)]);
  }

  async #handle(live: Live, event: UpgradeEvent, lost = 0): Promise<void> {
    if (live.gone.signal.aborted) return;
    const { agents, store, log } = this.#options;
    const { proxy } = live.state;
    const before = live.state;
    const result = step(
      before,
      event,
      {
        now: this.#now(),
        connected: agents.connectedSlots(proxy),
        slotOf: (epoch) => agents.slotOf(proxy, epoch),
        share: () => this.#shares.first(before),
      },
      this.#bounds,
    );
    const entries = recordOf(result.state, live.seq, this.#now(), result.entries);
    // A verdict that changes nothing is news for a reader only: the agent says it again after a restart.
    const passing = event.type === 'verdict' && entries.length === 0 && result.commands.length === 0;
    if (!passing && result.state !== before) {
      const made = { state: result.state, version: live.version, entries };
      const written = await persist(store, made, log, AbortSignal.any([live.gone.signal, this.#stop.signal]));
      if (written.type === 'lost') return this.#lost(live, written.stored, event, lost + 1);
      live.version = written.version;
      live.versions.add(written.version);
      live.seq += entries.length;
      // Stored, so it counts; but its orders are the next one's to give.
      if (live.gone.signal.aborted) return;
    }
    live.state = result.state;
    for (const command of result.commands) runCommand(this.#options, result.state, command);
    if (result.state !== before) this.#announce(result.state, entries);
    if (before.phase !== result.state.phase) this.#phaseChanged(result.state);
    if (result.state.policy.pacing.scope === 'fleet') this.#shares.soon();
    if (isOver(result.state)) {
      clearTimeout(live.timer);
      this.#live.delete(result.state.id);
      this.#over.add(result.state.id);
      for (const id of this.#over) if (this.#over.size > MAX_OVER) this.#over.delete(id);
    }
    this.#arm(result.state.id);
  }

  /**
   * Somebody else wrote the upgrade: its former owner, or the one that believes to be it. Where it is ours to run still, the event is
   * handled once more, on what is stored now; else it is let go, and nothing of this step has been ordered.
   */
  async #lost(live: Live, stored: Stored | undefined, event: UpgradeEvent, lost: number): Promise<void> {
    const { store, log } = this.#options;
    if (live.gone.signal.aborted) return;
    const over = stored === undefined || isOver(stored.state);
    if (over || lost > MAX_LOST || !this.#owns(live.state.proxy)) {
      this.#letGo(live);
      return;
    }
    const { verdict } = live.state;
    live.seq = (await untilThere(() => store.record(live.state.id), log, live.gone.signal)).length;
    live.state = { ...complete(stored.state), ...(verdict !== undefined && { verdict }) };
    live.version = stored.version;
    live.versions.add(stored.version);
    await this.#handle(live, event, lost);
    // What the other one ordered its link may not have reached.
    if (event.type !== 'resumed') await this.#handle(live, { type: 'resumed' }, lost);
  }

  #phaseChanged(state: UpgradeState): void {
    if (state.phase === 'Draining' && state.rollbackOf !== undefined) {
      void this.event(state.rollbackOf, { type: 'rollbackServing' });
    }
    if (state.phase !== 'Preflight' && state.phase !== 'Starting')
      queueMicrotask(() => void this.giveTurns(state.proxy));
  }

  #announce(state: UpgradeState, entries: readonly RecordEntry[]): void {
    for (const { text, event, phase } of entries) {
      this.#options.log.info({ upgrade: state.id, proxy: state.proxy, event, phase }, text);
    }
    this.#options.onUpgrade?.(state);
    for (const entry of entries) this.#options.onRecord?.(entry, state);
  }

  /** One timer an upgrade, for the machine's next own moment. */
  #arm(id: string, leastMs = 0): void {
    const live = this.#live.get(id);
    if (live === undefined) return;
    clearTimeout(live.timer);
    if (this.#stop.signal.aborted) return;
    const connected = this.#options.agents.connectedSlots(live.state.proxy);
    const around = { now: this.#now(), connected, bounds: this.#bounds };
    wake(live, around, leastMs, () => void this.event(id, { type: 'tick' }));
  }
}
