import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { KubeConfig, type KubernetesObject, type V1Pod } from '@kubernetes/client-node';
import type { EpochStatus, ProxyView, UpgradeView } from '@sluice/contract';
import { isReason, KubeClient } from '@sluice/xds-server/kube/client';
import type { AgentWords, PodStep, Provider, Slot, Wish } from '@sluice/xds-server/kube/provider';
import { parseAllDocuments } from 'yaml';
import { RedirectLoad } from '../../matrix/redirect-load.ts';
import type { Targets } from '../load/client.ts';
import { type Block, claimBlock } from '../ports.ts';
import { type Child, start, until } from '../process.ts';
import { parseSeen } from '../upstream/handle.ts';
import type { UpstreamPorts } from '../upstream/server.ts';
import { Cluster } from './cluster.ts';
import { startKruise } from './kruise.ts';
import { meshBootstrap } from './mesh-bootstrap.ts';
import { meshImages } from './mesh-images.ts';
import { APP_PORTS } from './mesh-ports.ts';
import { Node } from './node.ts';
import { bootstrapMap } from './sidecar-pod.ts';

const HARNESS = path.resolve(import.meta.dirname, '..');
const DEPLOY = path.resolve(import.meta.dirname, '../../../deploy');
const SYSTEM = 'sluice-system';
const STEP_MS = 250;

/** A cluster with a real node and OpenKruise, a controller for the agents, and a world outside for the apps to call. */
export class MeshCluster {
  readonly cluster: Cluster;
  readonly node: Node;
  readonly world: Targets;
  /** With the rights of deploy/rbac. */
  readonly kube: KubeClient;
  /** What sidecars are given. */
  readonly controller: { readonly controller: string; readonly xds: string };
  private readonly block: Block;
  private readonly children: Child[];

  static async start(): Promise<MeshCluster> {
    const block = await claimBlock();
    const cluster = await Cluster.start(block);
    const children: Child[] = [];
    try {
      children.push(await startKruise(cluster));
      const node = await Node.start(cluster, { images: await meshImages() });
      const host = node.gateway;
      const ports = { http: await block.port(), tcp: await block.port(), http2: await block.port() };
      const more = { grpc: await block.port(), control: await block.port(), host };
      const [api, xds] = [`${host}:${await block.port()}`, `${host}:${await block.port()}`];
      const policy = { http1: { silentIdleGraceMs: 1_000 } };
      const config = { apiAddress: api, xdsAddress: xds, state: path.join(block.dir, 'sluice.db'), policy };
      children.push(await program('controller-main.ts', config, /controller ready/));
      await cluster.client.apply(bootstrapMap(meshBootstrap(ports.http)));
      const world = { ...ports, ...more };
      const kube = await controllerClient(cluster);
      return new MeshCluster({ block, cluster, node, children, world, kube, api, xds });
    } catch (error) {
      for (const child of children) child.kill();
      await cluster.stop();
      throw error;
    }
  }

  readonly #world: UpstreamPorts & { readonly host: string };

  private constructor(parts: {
    block: Block;
    cluster: Cluster;
    node: Node;
    children: Child[];
    world: UpstreamPorts & { readonly host: string };
    kube: KubeClient;
    api: string;
    xds: string;
  }) {
    this.block = parts.block;
    this.cluster = parts.cluster;
    this.node = parts.node;
    this.children = parts.children;
    this.#world = parts.world;
    this.world = { host: parts.world.host, http: parts.world.http, tls: 0, tcp: parts.world.tcp };
    this.kube = parts.kube;
    this.controller = { controller: `http://${parts.api}`, xds: parts.xds };
  }

  async stop(): Promise<void> {
    await this.node.stop();
    for (const child of this.children) await child.stop();
    await this.cluster.stop();
    await this.block.release();
  }

  pod(name: string): Promise<V1Pod> {
    return this.cluster.client.get<V1Pod>({ apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace: 'default' } });
  }

  /** What the agents of that Pod say, as the controller heard it. */
  async words(name: string): Promise<AgentWords> {
    const { agents, epochs, upgrades } = await this.api<ProxyView>(`/proxies/${name}.default`);
    const views = await Promise.all(upgrades.map((id) => this.api<UpgradeView>(`/upgrades/${id}`)));
    const judged = (epoch: EpochStatus) => {
      const verdict = views.find(({ oldEpoch }) => oldEpoch === epoch.epoch)?.verdict ?? epoch.verdict;
      return { ...epoch, ...(verdict !== undefined && { verdict }) };
    };
    const words: { [S in Slot]?: { epochs: EpochStatus[] } } = {};
    for (const { slot, connected } of agents) {
      if (connected) words[slot as Slot] = { epochs: epochs.filter((one) => one.slot === slot).map(judged) };
    }
    return words;
  }

  /** Steps a Pod until it is done. @returns the reasons of the steps, each once @throws Error when it is refused, or fails */
  async upgrade(name: string, provider: Provider, wish: Wish, limitMs = 120_000): Promise<string[]> {
    const said: string[] = [];
    const step = async (): Promise<true | undefined> => {
      const next = await this.step(name, provider, wish);
      if (next === undefined) return undefined;
      const text = 'why' in next ? `${next.type}: ${next.why}` : next.type;
      if (said.at(-1) !== text) said.push(text);
      if (next.type === 'done') return true;
      if (next.type === 'refused' || next.type === 'failed' || next.type === 'gone') throw new Fatal(text);
      return undefined;
    };
    let fatal: Fatal | undefined;
    const guarded = () =>
      step().catch((error) => {
        if (!(error instanceof Fatal)) throw error;
        fatal = error;
        return true as const;
      });
    await until(`the upgrade of ${name}`, guarded, { limitMs, everyMs: STEP_MS }).catch((error: Error) => {
      throw new Error(`${error.message}\n${said.join('\n')}`);
    });
    if (fatal !== undefined) throw fatal;
    return said;
  }

  /** One step. undefined: the Pod changed meanwhile. */
  async step(name: string, provider: Provider, wish: Wish, undo = false): Promise<PodStep | undefined> {
    try {
      return await provider.step(await this.pod(name), wish, await this.words(name), { begin: true, undo });
    } catch (error) {
      if (!isReason(error, 'Conflict')) throw error;
      return undefined;
    }
  }

  /** Calls the app of a Pod from outside, and has it call the world, which is there for this Pod alone. */
  async load(podIP: string): Promise<{ readonly inbound: RedirectLoad; stop(): Promise<LoadCounts> }> {
    const world = await program('upstream/main.ts', this.#world, /upstream ready/);
    this.children.push(world);
    await control(podIP, '/start');
    const inbound = new RedirectLoad({ host: podIP, http: APP_PORTS.http, tls: 0, tcp: APP_PORTS.tcp });
    return {
      inbound,
      stop: async () => {
        await inbound.stop();
        const seenByApp = new Map((await control(podIP, '/stop')) as [string, number][]);
        const seenOutside = parseSeen(await (await fetch(`http://${this.#world.host}:${this.#world.control}`)).text());
        await world.stop();
        const outbound = (await control(podIP, '/result', JSON.stringify([...seenOutside]))) as LoadCounts['outbound'];
        return { inbound: inbound.result(seenByApp), outbound };
      },
    };
  }

  private async api<T>(url: string): Promise<T> {
    const response = await fetch(`${this.controller.controller}/api/v1${url}`, { signal: AbortSignal.timeout(10_000) });
    const answer = (await response.json()) as T & { message?: string };
    if (!response.ok) throw new Error(`${url}: ${answer.message}`);
    return answer;
  }
}

export interface LoadCounts {
  readonly inbound: ReturnType<RedirectLoad['result']>;
  /** `lagMs`: longest that the app was not run when it should have been; `synRetrans`: SYNs that the Pod sent twice. */
  readonly outbound: ReturnType<RedirectLoad['result']> & { readonly lagMs: number; readonly synRetrans: number };
}

class Fatal extends Error {}

/** Through the sidecar, as everything that comes in; a connection each, so that none is idle while the Envoy drains. */
async function control(podIP: string, url: string, body = ''): Promise<unknown> {
  const to = `http://${podIP}:${APP_PORTS.http}/load-control${url}`;
  const answer = await fetch(to, { method: 'POST', body, headers: { connection: 'close' } });
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

function program(file: string, config: object, ready: RegExp): Promise<Child> {
  const args = ['--conditions=sluice-source', path.join(HARNESS, file), JSON.stringify(config)];
  return start(process.execPath, args, { name: file, ready, readyTimeoutMs: 30_000 });
}

/** A client with exactly the rights of the controller's ServiceAccount. */
async function controllerClient(cluster: Cluster): Promise<KubeClient> {
  await cluster.namespace(SYSTEM);
  const dir = path.join(DEPLOY, 'rbac');
  for (const file of readdirSync(dir).filter((name) => name !== 'kustomization.yaml')) {
    for (const one of parseAllDocuments(readFileSync(path.join(dir, file), 'utf8'))) {
      await cluster.client.apply(one.toJS() as KubernetesObject);
    }
  }
  const config = new KubeConfig();
  config.loadFromFile(await cluster.serviceAccountKubeconfig(SYSTEM, 'sluice-controller'));
  return new KubeClient(config);
}
