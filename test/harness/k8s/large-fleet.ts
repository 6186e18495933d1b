import type { KubernetesObject, V1Pod } from '@kubernetes/client-node';
import { API_VERSION } from '@sluice/xds-server/kube/crds';
import type { HotUpgradeStatus } from '@sluice/xds-server/kube/hotupgrade';
import { type Block, claimBlock } from '../ports.ts';
import { type Child, until } from '../process.ts';
import { Cluster } from './cluster.ts';
import { HollowNodes } from './hollow.ts';
import { installSluice, startKubeController, USER } from './installed.ts';
import { EMPTY_IMAGE } from './sidecar-pod.ts';
import { SimulatedAgents } from './simulated-agents.ts';

const NODES = ['hollow-1', 'hollow-2', 'hollow-3', 'hollow-4'];
const image = (version: string) => `sluice.test/proxy:${version}`;
const [OLD, NEW] = [image('1.39.3'), image('1.40.0')];
const WRITERS = 32;
const QUIET_MS = 4_000;

/** What the controller took for one fleet. */
export interface FleetCost {
  readonly pods: number;
  /** Requests to the API server by `VERB RESOURCE`, as that one counts them: while agents came, and for the upgrade. */
  readonly joining: ReadonlyMap<string, number>;
  readonly upgrade: ReadonlyMap<string, number>;
  /** From the HotUpgrade until it was Done. */
  readonly seconds: number;
  /** CPU meanwhile. */
  readonly controllerSeconds: number;
  readonly apiServerSeconds: number;
}

/** A real API server and a real controller, with Pods and agents that are said to run. */
export class LargeFleets {
  readonly #block: Block;
  readonly #cluster: Cluster;
  readonly #nodes: HollowNodes;
  readonly #agents: SimulatedAgents;
  readonly #controller: Child;
  readonly #api: string;
  #pods = 0;

  static async start(log?: string): Promise<LargeFleets> {
    const block = await claimBlock();
    const cluster = await Cluster.start(block, { audit: USER });
    try {
      const kubeconfig = await installSluice(cluster);
      const [api, xds] = [`127.0.0.1:${await block.port()}`, `127.0.0.1:${await block.port()}`];
      const more = log === undefined ? {} : { log };
      const config = { logLevel: log === undefined ? 'warn' : 'info' };
      const controller = await startKubeController({ kubeconfig, api, xds, config, ...more });
      const nodes = await HollowNodes.start(cluster, NODES);
      return new LargeFleets({ block, cluster, nodes, controller, api: `http://${api}` });
    } catch (error) {
      await cluster.stop();
      await block.release();
      throw error;
    }
  }

  private constructor(parts: { block: Block; cluster: Cluster; nodes: HollowNodes; controller: Child; api: string }) {
    this.#block = parts.block;
    this.#cluster = parts.cluster;
    this.#nodes = parts.nodes;
    this.#controller = parts.controller;
    this.#api = parts.api;
    this.#agents = new SimulatedAgents(parts.cluster, parts.api);
  }

  async stop(): Promise<void> {
    this.#agents.stop();
    this.#nodes.stop();
    await this.#controller.stop();
    await this.#cluster.stop();
    await this.#block.release();
  }

  /** Makes so many Pods more, and upgrades them: a tenth at once. */
  async upgrade(pods: number, limitMs: number): Promise<FleetCost> {
    const app = `fleet-${pods}`;
    const before = await this.#cluster.audited();
    await this.#create(app, pods);
    this.#pods += pods;
    await until(
      `${this.#pods} agents are connected`,
      async () => (this.#agents.connected >= this.#pods ? true : undefined),
      { limitMs, everyMs: 250 },
    );
    const joined = await this.#quiet();
    const cpuOf = async () => [await this.#controllerCpu(), await this.#apiServerCpu()] as const;
    const [controllerBefore, apiServerBefore] = await cpuOf();
    const begun = Date.now();
    const hotUpgrade: KubernetesObject & { spec: object } = {
      apiVersion: API_VERSION,
      kind: 'HotUpgrade',
      metadata: { name: app, namespace: 'default' },
      spec: {
        selector: { matchLabels: { app } },
        container: 'proxy',
        target: { image: NEW },
        emptyImage: EMPTY_IMAGE,
        strategy: { maxUnavailable: '10%', canary: 1, batches: ['25%'] },
      },
    };
    await this.#cluster.client.apply(hotUpgrade);
    let last: HotUpgradeStatus | undefined;
    const over = ['Done', 'RolledBack', 'Failed', 'Aborted'];
    await until(
      `the upgrade of ${pods} Pods`,
      async () => {
        last = (await this.#cluster.client.get<KubernetesObject & { status?: HotUpgradeStatus }>(hotUpgrade)).status;
        return over.includes(last?.phase ?? '') ? true : undefined;
      },
      { limitMs, everyMs: 500 },
    ).catch((error: Error) => {
      throw new Error(`${error.message}; ${JSON.stringify(last)}`);
    });
    if (last?.phase !== 'Done') throw new Error(`${pods} Pods: ${last?.phase}: ${last?.reason}`);
    const seconds = (Date.now() - begun) / 1_000;
    const [controllerAfter, apiServerAfter] = await cpuOf();
    const upgraded = await this.#quiet();
    return {
      pods,
      joining: less(joined, before),
      upgrade: less(upgraded, joined),
      seconds,
      controllerSeconds: controllerAfter - controllerBefore,
      apiServerSeconds: apiServerAfter - apiServerBefore,
    };
  }

  async #create(app: string, count: number): Promise<void> {
    let next = 0;
    const writer = async (): Promise<void> => {
      for (let n = next++; n < count; n = next++) await this.#cluster.client.apply(pod(app, n));
    };
    await Promise.all(Array.from({ length: WRITERS }, writer));
  }

  /** Counts of the API server once the controller asks nothing more of it but what it asks all the time. */
  async #quiet(): Promise<Map<string, number>> {
    let counts = await this.#cluster.audited();
    await until(
      'the controller has written what it knows',
      async () => {
        const now = await this.#cluster.audited();
        const more = sum(less(now, counts));
        counts = now;
        // Leases and looks at what is there go on.
        return more <= QUIET_MS / 200 ? true : undefined;
      },
      { limitMs: 60_000, everyMs: QUIET_MS },
    );
    return counts;
  }

  async #controllerCpu(): Promise<number> {
    return cpuIn(await (await fetch(`${this.#api}/metrics`)).text());
  }

  async #apiServerCpu(): Promise<number> {
    return cpuIn(await this.#cluster.client.text('/metrics'));
  }
}

const cpuIn = (metrics: string): number => Number(/^process_cpu_seconds_total (\S+)/m.exec(metrics)?.[1]);

function pod(app: string, n: number): V1Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `${app}-${n}`, namespace: 'default', labels: { app } },
    spec: {
      nodeName: NODES[n % NODES.length] as string,
      automountServiceAccountToken: false,
      containers: [
        { name: 'proxy-1', image: OLD },
        { name: 'proxy-2', image: EMPTY_IMAGE },
      ],
    },
  };
}

export function sum(counts: ReadonlyMap<string, number>): number {
  return [...counts.values()].reduce((all, one) => all + one, 0);
}

function less(counts: ReadonlyMap<string, number>, before: ReadonlyMap<string, number>): Map<string, number> {
  return new Map([...counts].map(([what, count]) => [what, count - (before.get(what) ?? 0)]));
}
