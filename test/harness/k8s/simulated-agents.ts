import type { V1Pod } from '@kubernetes/client-node';
import { type AgentLink, createLink } from '@sluice/agent/link/index';
import {
  type AgentMessage,
  type ControllerMessage,
  type EpochStatus,
  PROTOCOL_VERSION,
  type Verdict,
} from '@sluice/contract';
import type { Cluster } from './cluster.ts';
import { EMPTY_IMAGE } from './sidecar-pod.ts';

type Slot = '1' | '2';
const SLOTS: readonly Slot[] = ['1', '2'];

interface Agent {
  readonly slot: Slot;
  readonly link: AgentLink;
  readonly end: AbortController;
  epochs: EpochStatus[];
}

interface Sim {
  readonly proxy: string;
  readonly uid: string;
  readonly agents: Map<Slot, Agent>;
  epoch: number;
}

/**
 * The agents of Pods on `HollowNodes`, each with its own link to the controller, by the agent's own code for links. There is no Envoy:
 * an agent serves as soon as its container runs, takes over from the other one, and an old epoch holds no connection.
 */
export class SimulatedAgents {
  /** Proxies whose old epochs hold a connection that policy protects, until they are let go. */
  readonly #held = new Set<string>();
  readonly #url: string;
  readonly #sims = new Map<string, Sim>();
  readonly #unwatch: () => void;
  #stopped = false;

  /** @param url the controller's API */
  constructor(cluster: Cluster, url: string) {
    this.#url = url;
    this.#unwatch = cluster.client.events<V1Pod>('/api/v1/pods', ({ type, object }) => this.#seen(type, object));
  }

  /** Agents whose link lives. */
  get connected(): number {
    let count = 0;
    for (const { agents } of this.#sims.values()) for (const { link } of agents.values()) if (link.connected) count++;
    return count;
  }

  hold(proxy: string): void {
    this.#held.add(proxy);
  }

  letGo(proxy: string): void {
    this.#held.delete(proxy);
    for (const sim of this.#sims.values()) {
      if (sim.proxy !== proxy) continue;
      for (const agent of sim.agents.values()) {
        const old = agent.epochs.find(({ state }) => state === 'draining');
        if (old?.upgradeId === undefined) continue;
        const verdict = SAFE(Date.now());
        // A link that is made anew says it too.
        agent.epochs = [{ ...old, verdict }];
        agent.link.send({ type: 'verdict', upgradeId: old.upgradeId, epoch: old.epoch, verdict });
      }
    }
  }

  #verdict(proxy: string, at: number): Verdict {
    return this.#held.has(proxy)
      ? { ...SAFE(at), safe: false, protected: 1, total: 1, summary: 'one is left' }
      : SAFE(at);
  }

  stop(): void {
    this.#stopped = true;
    this.#unwatch();
    for (const { agents } of this.#sims.values()) for (const { end } of agents.values()) end.abort();
  }

  #seen(type: string, pod: V1Pod): void {
    const { uid = '', name, namespace } = pod.metadata ?? {};
    if (this.#stopped) return;
    const sim = this.#sims.get(uid) ?? { proxy: `${name}.${namespace}`, uid, agents: new Map(), epoch: -1 };
    for (const slot of SLOTS) {
      const status = pod.status?.containerStatuses?.find((one) => one.name === `proxy-${slot}`);
      const runs = type !== 'DELETED' && status?.state?.running !== undefined && status.image !== EMPTY_IMAGE;
      const agent = sim.agents.get(slot);
      if (runs && agent === undefined) {
        this.#sims.set(uid, sim);
        this.#start(sim, slot, status.image.replace(/^.*:/, ''));
      }
      if (!runs && agent !== undefined) {
        agent.end.abort();
        sim.agents.delete(slot);
      }
    }
    if (type === 'DELETED') this.#sims.delete(uid);
  }

  #start(sim: Sim, slot: Slot, version: string): void {
    const end = new AbortController();
    const epoch = ++sim.epoch;
    const own: EpochStatus = { epoch, slot, state: 'serving', version, pid: 1, startedAt: Date.now() };
    const agent: Agent = {
      slot,
      end,
      epochs: [own],
      link: createLink({
        urls: [this.#url],
        hello: () => ({
          type: 'hello',
          v: PROTOCOL_VERSION,
          proxy: sim.proxy,
          slot,
          agentVersion: '0.0.0',
          identity: {},
          epochs: agent.epochs,
          versions: [version],
          labels: { 'sluice.dev/pod-uid': sim.uid },
        }),
        onMessage: (message) => this.#hear(sim, agent, message),
        log: () => undefined,
        signal: end.signal,
      }),
    };
    const other = sim.agents.get(slot === '1' ? '2' : '1');
    sim.agents.set(slot, agent);
    const old = other?.epochs.find(({ state }) => state === 'serving');
    if (other === undefined || old === undefined) return;
    const upgradeId = `slot-${slot}-${epoch}-${sim.uid}`;
    const at = Date.now();
    agent.epochs = [{ ...own, upgradeId }];
    agent.link.send({
      ...{ type: 'serving', upgradeId, epoch, oldEpoch: old.epoch, oldSlot: other.slot },
      ...{ from: old.version, to: version, at, method: 'hot-restart' },
    } as AgentMessage);
    other.epochs = [{ ...old, state: 'draining', drainingSince: at, upgradeId, verdict: this.#verdict(sim.proxy, at) }];
    other.link.send({ type: 'epochs', epochs: other.epochs });
  }

  #hear({ proxy }: Sim, agent: Agent, message: ControllerMessage): void {
    const [old] = agent.epochs;
    if (old?.upgradeId === undefined || old.state !== 'draining') return;
    const { upgradeId, epoch } = old;
    const at = Date.now();
    if (message.type === 'drain') {
      const { version } = message.order;
      agent.link.send({ type: 'orderApplied', upgradeId, epoch, version, via: 'link', at });
      agent.link.send({ type: 'verdict', upgradeId, epoch, verdict: this.#verdict(proxy, at) });
    }
    if (message.type === 'reset') {
      agent.epochs = [{ ...old, state: 'ended' }];
      agent.link.send({ type: 'reset', upgradeId, epoch, at, drained: 0, cut: [], old: 0 });
      agent.link.send({ type: 'epochs', epochs: agent.epochs });
    }
  }
}

const SAFE = (at: number): Verdict => ({
  safe: true,
  summary: 'safe: no connection is left',
  at,
  total: 0,
  protected: 0,
  holding: 0,
  held: [],
  witnesses: [{ name: 'kernel', open: 0, at }],
  pastDeadline: false,
});
