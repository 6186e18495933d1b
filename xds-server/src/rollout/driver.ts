import { randomBytes } from 'node:crypto';
import { isRolloutOver, type RolloutEntry, type RolloutSpec, SluiceError, toSluiceError } from '@sluice/contract';
import type { Log } from '../log.ts';
import type { Store } from '../store/store.ts';
import { needsMetrics } from './analysis.ts';
import { atOnce } from './at-once.ts';
import type { Fleet, MetricsSource } from './fleet.ts';
import { plan } from './planner.ts';
import { newRollout, type RolloutEvent, type RolloutState } from './state.ts';

export interface RolloutsOptions {
  readonly store: Store;
  readonly fleet: Fleet;
  readonly log: Log;
  readonly metrics?: MetricsSource;
  /** Which of the stored ones it takes up, where several share a store. All without. */
  readonly own?: (spec: RolloutSpec) => boolean;
  readonly now?: () => number;
  /** Ended rollouts kept. */
  readonly keep?: number;
  readonly onRollout?: (state: RolloutState) => void;
  readonly onEntry?: (entry: RolloutEntry) => void;
}

interface Live {
  state: RolloutState;
  version: string;
  seq: number;
  /** Steps of one rollout are made one after the other. */
  queue: Promise<void>;
  /** A look at the fleet is due already: more changes need no further one. */
  due: boolean;
  timer?: NodeJS.Timeout;
  measureAt: number;
  /** How often in a row the source of metrics gave nothing to judge by. */
  unheard: number;
  lookedAt: number;
  /** Events that could not be stored. */
  readonly kept: RolloutEvent[];
}

const MAX_TIMER_MS = 2_147_483_647;
const MEASURE_MS = 20_000;
const MEASURE_AGAIN_MAX_MS = 60_000;
const RETRY_MS = 5_000;

/** Runs the planner of every rollout that is not over: stores each step before its orders go out. */
export class Rollouts {
  readonly #options: RolloutsOptions;
  readonly #now: () => number;
  readonly #live = new Map<string, Live>();
  readonly #stop = new AbortController();
  /** One rollout is made at a time, so that two can not claim the same proxy. */
  #creating: Promise<unknown> = Promise.resolve();

  constructor(options: RolloutsOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
  }

  /** Takes up what an earlier controller left. */
  async start(): Promise<void> {
    const { store, own = () => true } = this.#options;
    for (const { state, version } of await store.rollouts()) {
      if (isRolloutOver(state.phase) || !own(state.spec)) continue;
      const seq = (await store.rolloutRecord(state.id)).length;
      this.#live.set(state.id, live(state, version, seq));
    }
    for (const id of this.#live.keys()) this.#soon(id, { type: 'resumed' });
  }

  /** Not over, oldest first. */
  active(): RolloutState[] {
    return [...this.#live.values()].map((one) => one.state).sort((a, b) => a.createdAt - b.createdAt);
  }

  async find(id: string): Promise<RolloutState> {
    const state = this.#live.get(id)?.state ?? (await this.#options.store.rollout(id))?.state;
    if (state === undefined) throw new SluiceError('ROLLOUT_UNKNOWN', `expected a known rollout, found ${id}`);
    return state;
  }

  /** Throws ROLLOUT_CONFLICT naming the proxy that another one has, CONFIG_INVALID for limits that nobody can judge. */
  create(spec: RolloutSpec): Promise<RolloutState> {
    const made = this.#creating.then(() => this.#create(spec));
    this.#creating = made.catch(() => undefined);
    return made;
  }

  async #create(spec: RolloutSpec): Promise<RolloutState> {
    const { fleet, metrics, store } = this.#options;
    if (needsMetrics(spec) && metrics === undefined) {
      throw new SluiceError(
        'CONFIG_INVALID',
        'analysis: maxFailedRequests and maxP99Ms expect a source of metrics, found none',
      );
    }
    const now = this.#now();
    const state = newRollout(`r${now.toString(36)}-${randomBytes(3).toString('hex')}`, spec, now);
    const observed = await fleet.observe(state);
    if (observed.length === 0)
      throw new SluiceError('PROXY_UNKNOWN', 'selector: expected at least one proxy, found none');
    for (const { name } of observed) this.#free(name, state.id);
    const entry = this.#entry(state, 0, { phase: state.phase, event: 'created', text: `rollout to ${spec.target.to}` });
    const { version } = await store.insertRollout(state, [entry]);
    this.#live.set(state.id, live(state, version, 1));
    this.#announce(state, [entry]);
    await this.event(state.id, { type: 'tick' });
    // It is stored, and goes on: what could not be removed now is removed with the next one.
    await store.pruneRollouts(this.#options.keep ?? 100).catch((thrown) => {
      this.#options.log.warn({ rollout: state.id, err: toSluiceError(thrown) }, 'old rollouts could not be removed');
    });
    return this.find(state.id);
  }

  #free(name: string, own: string): void {
    const other = this.active().find((one) => one.id !== own && one.members.some((member) => member.name === name));
    if (other !== undefined) throw new SluiceError('ROLLOUT_CONFLICT', `rollout ${other.id} has ${name} already`);
  }

  /** A verb of a person, or something that happened. Rejects when the verb is refused or the step can not be stored. */
  async event(id: string, event: RolloutEvent): Promise<RolloutState> {
    let one = this.#live.get(id);
    if (one === undefined) {
      // One that is over can be rolled back still.
      const stored = await this.#options.store.rollout(id);
      if (stored === undefined) throw new SluiceError('ROLLOUT_UNKNOWN', `expected a known rollout, found ${id}`);
      if (event.type === 'rollback') for (const { name } of stored.state.members) this.#free(name, id);
      const seq = (await this.#options.store.rolloutRecord(id)).length;
      one = this.#live.get(id) ?? live(stored.state, stored.version, seq);
      this.#live.set(id, one);
    }
    const current = one;
    const step = current.queue.then(() => this.#step(current, event));
    current.queue = step.catch(() => undefined);
    try {
      await step;
    } finally {
      if (isRolloutOver(current.state.phase)) this.#live.delete(id);
      else this.#live.set(id, current);
    }
    return current.state;
  }

  /** Something in the fleet changed: each rollout, or only that one, looks at it anew, once for all that comes within a moment. */
  changed(only?: string): void {
    for (const [id, one] of this.#live) {
      if (one.due || (only !== undefined && only !== id)) continue;
      one.due = true;
      setTimeout(() => {
        one.due = false;
        this.#look(one);
      }, lookMs(one.state.members.length));
    }
  }

  /** An Envoy of a member crashed; `upgradeId`: the upgrade that its epoch came by. */
  crashed(member: string, upgradeId: string): void {
    const own = [...this.#live.values()].find(({ state }) => state.members.some((one) => one.upgradeId === upgradeId));
    if (own !== undefined) this.#soon(own.state.id, { type: 'crashed', member });
  }

  async close(): Promise<void> {
    this.#stop.abort();
    for (const one of this.#live.values()) clearTimeout(one.timer);
    await Promise.all([...this.#live.values()].map((one) => one.queue));
  }

  #soon(id: string, event: RolloutEvent): void {
    if (this.#stop.signal.aborted || !this.#live.has(id)) return;
    this.event(id, event).catch((thrown) => {
      this.#options.log.error({ rollout: id, event: event.type, err: toSluiceError(thrown) }, 'rollout step failed');
      const one = this.#live.get(id);
      if (one === undefined) return;
      // What is told once is kept until it is stored; everything else is seen again at the next look.
      if (event.type === 'crashed' || event.type === 'resumed') one.kept.push(event);
      this.#arm(one, this.#now() + RETRY_MS);
    });
  }

  /** The next look, and before it what could not be stored. */
  #look(one: Live): void {
    for (const event of one.kept.splice(0)) this.#soon(one.state.id, event);
    this.#soon(one.state.id, { type: 'tick' });
  }

  async #step(one: Live, event: RolloutEvent, again = true): Promise<void> {
    if (this.#stop.signal.aborted) return;
    one.lookedAt = this.#now();
    const { fleet, store, log } = this.#options;
    const before = one.state;
    const others = new Set(
      this.active().flatMap((other) => (other.id === before.id ? [] : other.members.map((member) => member.name))),
    );
    const observed = (await fleet.observe(before)).filter((seen) => !others.has(seen.name));
    const result = plan(before, observed, this.#now(), event);
    const entries = result.entries.map((entry, n) => this.#entry(before, one.seq + n, entry));
    if (entries.length > 0 || JSON.stringify(result.state) !== JSON.stringify(before)) {
      let version: string;
      try {
        ({ version } = await store.updateRollout(result.state, one.version, entries));
      } catch (thrown) {
        if (!again || !(thrown instanceof SluiceError && thrown.code === 'ROLLOUT_CONFLICT')) throw thrown;
        // A write of ours whose answer was lost, or another controller's: the step is made once more, on what is stored.
        await this.#reload(one);
        return this.#step(one, event, false);
      }
      one.version = version;
      one.seq += entries.length;
      one.state = result.state;
      this.#announce(result.state, entries);
    }
    await atOnce(result.actions, (action) =>
      // What could not be ordered now is ordered again: the planner sees that nothing came of it.
      fleet.carryOut(action, result.state).catch((thrown) => {
        log.warn({ rollout: before.id, ...action, err: toSluiceError(thrown) }, 'a member could not be ordered');
      }),
    );
    this.#arm(one, result.wakeAt);
  }

  async #reload(one: Live): Promise<void> {
    const { store } = this.#options;
    const stored = await store.rollout(one.state.id);
    if (stored === undefined) return;
    one.seq = (await store.rolloutRecord(one.state.id)).length;
    one.state = stored.state;
    one.version = stored.version;
  }

  #arm(one: Live, wakeAt: number | undefined): void {
    clearTimeout(one.timer);
    const { metrics } = this.#options;
    if (this.#stop.signal.aborted || isRolloutOver(one.state.phase)) return;
    const { phase, spec } = one.state;
    const judged = phase === 'Progressing' || phase === 'Paused';
    const measured = metrics !== undefined && needsMetrics(spec) && judged;
    const at = Math.min(wakeAt ?? Number.POSITIVE_INFINITY, measured ? one.measureAt : Number.POSITIVE_INFINITY);
    if (!Number.isFinite(at)) return;
    // What each of thousands of members waits for comes due at moments of its own: they share a look.
    const soonest = one.lookedAt + lookMs(one.state.members.length);
    const wait = Math.min(MAX_TIMER_MS, Math.max(0, Math.max(at, soonest) - this.#now()));
    one.timer = setTimeout(() => {
      if (measured && this.#now() >= one.measureAt) void this.#measure(one);
      else this.#look(one);
    }, wait);
  }

  async #measure(one: Live): Promise<void> {
    const { metrics, log } = this.#options;
    if (metrics === undefined) return;
    const at = this.#now();
    one.measureAt = at + metrics.everyMs;
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(MEASURE_MS)]);
    try {
      const measured = await metrics.measure(one.state, at, signal);
      one.unheard = 0;
      this.#soon(one.state.id, { type: 'measured', measured });
    } catch (thrown) {
      if (this.#stop.signal.aborted) return;
      const error = toSluiceError(thrown);
      const wait = Math.max(metrics.everyMs, Math.min(MEASURE_AGAIN_MAX_MS, metrics.everyMs * 2 ** one.unheard++));
      one.measureAt = this.#now() + wait;
      log.warn({ rollout: one.state.id, err: error, waitMs: wait }, 'the source of metrics gave nothing to judge by');
      this.#soon(one.state.id, { type: 'unmeasured', reason: error.message });
    }
  }

  #entry(state: RolloutState, seq: number, entry: Omit<RolloutEntry, 'rolloutId' | 'seq' | 'at'>): RolloutEntry {
    return { rolloutId: state.id, seq, at: this.#now(), ...entry };
  }

  #announce(state: RolloutState, entries: readonly RolloutEntry[]): void {
    for (const { text, event, phase } of entries) this.#options.log.info({ rollout: state.id, event, phase }, text);
    this.#options.onRollout?.(state);
    for (const entry of entries) this.#options.onEntry?.(entry);
  }
}

/** A fleet of thousands speaks all the time, and its state is large: it is looked at, stored and shown once a second. */
function lookMs(members: number): number {
  return Math.min(1_000, Math.max(50, members / 2));
}

function live(state: RolloutState, version: string, seq: number): Live {
  return { state, version, seq, queue: Promise.resolve(), due: false, measureAt: 0, unheard: 0, lookedAt: 0, kept: [] };
}
