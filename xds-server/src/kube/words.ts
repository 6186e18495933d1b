import type { EpochStatus, Verdict } from '@sluice/contract';
import type { Agents } from '../link/agents.ts';
import type { AgentWord, AgentWords, Slot } from './provider.ts';

/** Label of an agent that lives in a Pod: `metadata.uid` of that Pod, by the downward API. */
export const UID_LABEL = 'sluice.dev/pod-uid';

/** What the agents of Pods say now: over links of this process, or as other replicas of the controller wrote it down. */
export interface Words {
  /** Words of this very Pod: of one of the same name with another uid nothing is told. An agent that is away says nothing. */
  of(namespace: string, pod: string, uid: string): AgentWords;
  /** @returns ends it */
  onChange(changed: (namespace: string, pod: string) => void): () => void;
}

/** The proxy of a Pod: its name is `POD.NAMESPACE`. A namespace has no dot, so the last one parts them. */
export function proxyOfPod(namespace: string, pod: string): string {
  return `${pod}.${namespace}`;
}

/** undefined: no Pod's proxy. */
export function podOfProxy(proxy: string): { readonly namespace: string; readonly name: string } | undefined {
  const dot = proxy.lastIndexOf('.');
  if (dot <= 0 || dot === proxy.length - 1) return undefined;
  return { namespace: proxy.slice(dot + 1), name: proxy.slice(0, dot) };
}

const SLOTS: readonly Slot[] = ['1', '2'];

export interface AgentWordsOptions {
  readonly agents: Agents;
  /** The newest verdict of an old epoch that drains, where it is known. */
  readonly verdict: (proxy: string, epoch: number) => Verdict | undefined;
  /** Whether another replica of the controller lives: what it wrote of its agents counts. */
  readonly isLive: (replica: string) => boolean;
}

/**
 * Words of the agents that are linked to this process or to another replica. Of those the store tells epochs and no verdict: an
 * old one is over for us when it has ended.
 */
export class KnownWords implements Words {
  readonly #options: AgentWordsOptions;
  readonly #listeners = new Set<(namespace: string, pod: string) => void>();

  constructor(options: AgentWordsOptions) {
    this.#options = options;
  }

  of(namespace: string, pod: string, uid: string): AgentWords {
    const proxy = proxyOfPod(namespace, pod);
    const words: { [S in Slot]?: AgentWord } = {};
    for (const slot of SLOTS) {
      const entry = this.#options.agents.entry(proxy, slot);
      if (entry === undefined || entry.labels?.[UID_LABEL] !== uid) continue;
      const elsewhere = entry.replica !== undefined && this.#options.isLive(entry.replica);
      if (entry.link === undefined && !elsewhere) continue;
      words[slot] = { epochs: entry.epochs.map((epoch) => this.#judged(proxy, epoch)) };
    }
    return words;
  }

  onChange(changed: (namespace: string, pod: string) => void): () => void {
    this.#listeners.add(changed);
    return () => this.#listeners.delete(changed);
  }

  /** An agent of that proxy came, went, or said something. */
  changed(proxy: string): void {
    const pod = podOfProxy(proxy);
    if (pod === undefined) return;
    for (const listener of this.#listeners) listener(pod.namespace, pod.name);
  }

  /** The list of epochs has the verdict of when it was sent. */
  #judged(proxy: string, epoch: EpochStatus): EpochStatus {
    if (epoch.state !== 'draining') return epoch;
    const verdict = this.#options.verdict(proxy, epoch.epoch) ?? epoch.verdict;
    return verdict === undefined ? epoch : { ...epoch, verdict };
  }
}
