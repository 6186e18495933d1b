import { type ControllerMessage, type EpochStatus, SluiceError } from '@sluice/contract';
import { UID_LABEL } from '../kube/words.ts';
import type { AgentRow } from '../store/store.ts';
import type { AgentLink } from './server.ts';

/** One slot of one proxy as this controller knows it: from its store until the agent says hello. */
export interface AgentEntry {
  readonly proxy: string;
  readonly slot: string;
  agentVersion: string;
  versions: readonly string[];
  epochs: readonly EpochStatus[];
  agentRss?: number;
  labels?: Readonly<Record<string, string>>;
  since: number;
  link?: AgentLink;
  /** The other replica that holds its link, by what the store says. */
  replica?: string;
}

/** The agents that are known, and the links of those that are connected. */
export class Agents {
  readonly #proxies = new Map<string, Map<string, AgentEntry>>();

  restore(row: AgentRow): void {
    const { seenAt, ...known } = row;
    this.#slots(row.proxy).set(row.slot, { ...known, since: seenAt });
  }

  connected(link: AgentLink): AgentEntry {
    const { hello } = link;
    const entry: AgentEntry = {
      proxy: link.proxy,
      slot: link.slot,
      agentVersion: hello.agentVersion,
      versions: hello.versions,
      epochs: hello.epochs,
      ...(hello.memory === undefined ? {} : { agentRss: hello.memory.agentRss }),
      ...(hello.labels === undefined ? {} : { labels: hello.labels }),
      since: link.since,
      link,
    };
    const slots = this.#slots(link.proxy);
    // What is remembered of another Pod of this name says nothing of this one.
    for (const [slot, one] of slots)
      if (one.link === undefined && one.labels?.[UID_LABEL] !== entry.labels?.[UID_LABEL]) slots.delete(slot);
    slots.set(link.slot, entry);
    return entry;
  }

  gone(link: AgentLink, now: number): void {
    const entry = this.#proxies.get(link.proxy)?.get(link.slot);
    if (entry?.link !== link) return;
    delete entry.link;
    entry.since = now;
  }

  /** One that is no more; a link that lives keeps it. */
  forget(proxy: string): void {
    if (this.connectedSlots(proxy).size === 0) this.#proxies.delete(proxy);
  }

  proxies(): string[] {
    return [...this.#proxies.keys()].sort();
  }

  of(proxy: string): AgentEntry[] {
    return [...(this.#proxies.get(proxy)?.values() ?? [])].sort((a, b) => a.slot.localeCompare(b.slot));
  }

  entry(proxy: string, slot: string): AgentEntry | undefined {
    return this.#proxies.get(proxy)?.get(slot);
  }

  connectedSlots(proxy: string): Set<string> {
    return new Set(this.of(proxy).flatMap((one) => (one.link === undefined ? [] : [one.slot])));
  }

  /** The slot whose agent holds that epoch; a living one before one that has ended. */
  slotOf(proxy: string, epoch: number): string | undefined {
    const holders = this.of(proxy).flatMap((one) =>
      one.epochs.filter((e) => e.epoch === epoch).map((e) => ({ slot: one.slot, living: isLiving(e) })),
    );
    return (holders.find((one) => one.living) ?? holders[0])?.slot;
  }

  serving(proxy: string): EpochStatus | undefined {
    const serving = this.of(proxy).flatMap((one) => one.epochs.filter((epoch) => epoch.state === 'serving'));
    return serving.sort((a, b) => b.epoch - a.epoch)[0];
  }

  /**
   * Whom to order a new epoch from: the one asked for; the only one there; of two, the empty one when it knows the
   * target (its container carries the new version), else the one that serves. undefined: nobody fitting is connected.
   */
  choose(proxy: string, to: string, wanted?: string): string | undefined {
    const there = this.of(proxy).filter((one) => one.link !== undefined);
    if (wanted !== undefined) return there.find((one) => one.slot === wanted)?.slot;
    if (there.length <= 1) return there[0]?.slot;
    const empty = there.find((one) => !one.epochs.some(isLiving) && one.versions.includes(to));
    const serving = there.find((one) => one.epochs.some((epoch) => epoch.state === 'serving'));
    return (empty ?? serving)?.slot;
  }

  /** Of a Pod's proxy: the uid of the Pod whose agent was heard last. */
  podUid(proxy: string): string | undefined {
    const newest = this.of(proxy).toSorted((a, b) => b.since - a.since);
    return newest.map((one) => one.labels?.[UID_LABEL]).find((uid) => uid !== undefined);
  }

  /** What its agents say of where it is; of two slots they are laid over each other. */
  labels(proxy: string): Readonly<Record<string, string>> {
    return Object.assign({}, ...this.of(proxy).map((one) => one.labels ?? {}));
  }

  send(proxy: string, slot: string, message: ControllerMessage): boolean {
    return this.entry(proxy, slot)?.link?.send(message) ?? false;
  }

  /** Throws PROXY_UNKNOWN or AGENT_AWAY. */
  require(proxy: string): AgentEntry[] {
    const all = this.of(proxy);
    if (all.length === 0) {
      const known = this.proxies().slice(0, 10).join(', ') || 'none';
      throw new SluiceError('PROXY_UNKNOWN', `expected a known proxy, found ${proxy}; known are: ${known}`);
    }
    const there = all.filter((one) => one.link !== undefined);
    if (there.length === 0) throw new SluiceError('AGENT_AWAY', `no agent of ${proxy} is connected`);
    return there;
  }

  #slots(proxy: string): Map<string, AgentEntry> {
    let slots = this.#proxies.get(proxy);
    if (slots === undefined) {
      slots = new Map();
      this.#proxies.set(proxy, slots);
    }
    return slots;
  }
}

export function isLiving(epoch: EpochStatus): boolean {
  return epoch.state === 'starting' || epoch.state === 'serving' || epoch.state === 'draining';
}
