import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import type { Phase, ProxyView, UpgradeView } from '@sluice/contract';
import { ownerOf } from '@sluice/xds-server/replicas/rendezvous';
import { Balancer } from '../balancer.ts';
import { endEpochs, KeeperProcess } from '../keeper.ts';
import { meshResources } from '../mesh.ts';
import type { Block } from '../ports.ts';
import { type Child, start, until } from '../process.ts';
import type { Cluster } from './cluster.ts';

export const REPLICA_NAMESPACE = 'sluice-system';
const CRDS = path.resolve(import.meta.dirname, '../../../deploy/crds');
const RBAC = path.resolve(CRDS, '../rbac');
const ACCOUNT = 'sluice-controller';
/** Shorter than in production, so that a test need not wait for it; long enough for a busy machine. */
const LEASE_SECONDS = 5;

interface Replica {
  readonly id: string;
  readonly apiPort: number;
  readonly xdsPort: number;
  /** Its way to the API server. */
  readonly kubeconfig: string;
  readonly kubePort: number;
  kube: Balancer;
  child: Child;
}

/** When a replica led: `until` is not set while it does. */
export interface LedTerm {
  readonly id: string;
  readonly fence: number;
  readonly from: number;
  until?: number;
}

export interface MeshProxy {
  readonly name: string;
  readonly port: number;
  readonly agent: KeeperProcess;
}

/** Several controllers, each a process, over a real API server; agents and Envoys reach them at one address. */
export class Replicas {
  readonly cluster: Cluster;
  readonly all: readonly Replica[];
  readonly terms: LedTerm[] = [];
  readonly url: string;
  readonly #block: Block;
  readonly #upstream: http.Server;
  readonly #upstreamPort: number;
  readonly #balancers: readonly Balancer[];
  readonly #agents: KeeperProcess[] = [];
  readonly #dirs: string[] = [];
  #killAt: { readonly id: string; readonly phase: Phase; readonly killed: (at: number) => void } | undefined;

  static async start(cluster: Cluster, block: Block, count = 3): Promise<Replicas> {
    for (const folder of [CRDS, RBAC]) {
      if (folder === RBAC) await cluster.namespace(REPLICA_NAMESPACE);
      await cluster.kubectl('apply', '-k', folder);
    }
    for (const kind of [
      'hotupgrades',
      'drainpolicies',
      'meshproxies',
      'proxyupgrades',
      'proxyrollouts',
      'recordchunks',
    ]) {
      await until(`${kind} are served`, async () => {
        await cluster.kubectl('get', `${kind}.sluice.dev`, '-A');
        return true;
      });
    }
    // With exactly the rights that it has in production.
    const kubeconfig = await cluster.serviceAccountKubeconfig(REPLICA_NAMESPACE, ACCOUNT);
    const apiServer = Number(new URL(cluster.url).port);
    const all: Replica[] = [];
    for (let n = 0; n < count; n++) {
      const ports = { apiPort: await block.port(), xdsPort: await block.port(), kubePort: await block.port() };
      const own = path.join(block.dir, `replica-${n}.kubeconfig`);
      writeFileSync(own, readFileSync(kubeconfig, 'utf8').replace(cluster.url, `https://127.0.0.1:${ports.kubePort}`));
      const kube = await Balancer.start(ports.kubePort, [apiServer]);
      all.push({ id: `sluice-controller-${n}`, ...ports, kubeconfig: own, kube, child: undefined as unknown as Child });
    }
    const upstreamPort = await block.port();
    const upstream = http.createServer((request, response) => {
      const delay = Number(new URL(request.url ?? '/', 'http://x').searchParams.get('delay') ?? 0);
      setTimeout(() => response.end('done\n'), delay);
    });
    upstream.keepAliveTimeout = 120_000;
    await new Promise<void>((resolve) => upstream.listen(upstreamPort, '127.0.0.1', resolve));
    const [api, xds] = [await block.port(), await block.port()];
    const balancers = [
      await Balancer.start(
        api,
        all.map(({ apiPort }) => apiPort),
      ),
      await Balancer.start(
        xds,
        all.map(({ xdsPort }) => xdsPort),
      ),
    ];
    mkdirSync(path.join(block.dir, 'resources'));
    writeFileSync(path.join(block.dir, 'envoy.json'), '{}');
    const replicas = new Replicas({ cluster, block, all, upstream, upstreamPort, balancers });
    for (const one of all) await replicas.startOne(one.id);
    return replicas;
  }

  private constructor(parts: {
    cluster: Cluster;
    block: Block;
    all: readonly Replica[];
    upstream: http.Server;
    upstreamPort: number;
    balancers: readonly Balancer[];
  }) {
    this.cluster = parts.cluster;
    this.all = parts.all;
    this.#block = parts.block;
    this.#upstream = parts.upstream;
    this.#upstreamPort = parts.upstreamPort;
    this.#balancers = parts.balancers;
    this.url = `http://127.0.0.1:${parts.balancers[0]?.port}`;
  }

  one(id: string): Replica {
    return this.all.find((one) => one.id === id) as Replica;
  }

  /** Starts it (again) on the same ports. */
  async startOne(id: string): Promise<void> {
    const one = this.one(id);
    const config = {
      kubernetes: {
        namespace: REPLICA_NAMESPACE,
        kubeconfig: one.kubeconfig,
        replica: { id, leaseSeconds: LEASE_SECONDS },
      },
      apiAddress: `127.0.0.1:${one.apiPort}`,
      xdsAddress: `127.0.0.1:${one.xdsPort}`,
      resources: path.join(this.#block.dir, 'resources'),
      logLevel: 'debug',
    };
    const main = path.join(import.meta.dirname, '../controller-main.ts');
    one.child = await start(process.execPath, ['--conditions=sluice-source', main, JSON.stringify(config)], {
      name: id,
      ready: /^controller ready/,
      readyTimeoutMs: 40_000,
      log: path.join(this.#block.dir, `${id}.log`),
      onLine: (line) => this.#onLine(id, line),
    });
  }

  async kill(id: string): Promise<void> {
    this.one(id).child.kill('SIGKILL');
    await this.one(id).child.ended;
    for (const term of this.terms) if (term.id === id) term.until ??= Date.now();
  }

  /** Takes the API server away from that replica alone. */
  cutOff(id: string): void {
    this.one(id).kube.stop();
  }

  async heal(id: string): Promise<void> {
    const one = this.one(id);
    one.kube = await Balancer.start(one.kubePort, [Number(new URL(this.cluster.url).port)]);
  }

  /** As soon as that replica says that an upgrade has entered that phase. Resolves with the time, epoch milliseconds. */
  killAt(id: string, phase: Phase): Promise<number> {
    return new Promise((killed) => {
      this.#killAt = { id, phase, killed };
    });
  }

  get running(): string[] {
    return this.all.filter(({ child }) => child.running).map(({ id }) => id);
  }

  owner(proxy: string, among = this.running): string {
    return ownerOf(proxy, among) as string;
  }

  /** Who leads now, and runs. */
  leader(limitMs = 30_000): Promise<LedTerm> {
    return until('a leader', () => this.terms.findLast((term) => term.until === undefined), { limitMs });
  }

  /** A name that has not been used, of a proxy of that replica. */
  nameFor(owner: string, prefix: string): string {
    for (let n = 0; ; n++) if (this.owner(`${prefix}-${n}`) === owner) return `${prefix}-${n}`;
  }

  /** A proxy with its agent, its Envoy and a listener of its own; resolves when it answers. */
  async proxy(name: string, envoy: string): Promise<MeshProxy> {
    const port = await this.#block.port();
    const resources = path.join(this.#block.dir, 'resources', name);
    mkdirSync(resources, { recursive: true });
    writeFileSync(
      path.join(resources, 'all.json'),
      JSON.stringify({ resources: meshResources(port, this.#upstreamPort) }),
    );
    const dir = path.join(this.#block.dir, name);
    mkdirSync(dir);
    this.#dirs.push(dir);
    const agent = await KeeperProcess.start({
      proxy: name,
      dir,
      envoy,
      bootstrap: path.join(this.#block.dir, 'envoy.json'),
      baseId: this.#block.baseId(),
      concurrency: 1,
      controllers: [this.url],
      xds: `127.0.0.1:${this.#balancers[1]?.port}`,
    });
    this.#agents.push(agent);
    await this.linked(name);
    await until(`${name} answers`, async () =>
      (await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } })).ok ? true : undefined,
    );
    return { name, port, agent };
  }

  endProxy({ agent }: MeshProxy): void {
    agent.child.kill('SIGKILL');
    endEpochs(agent.dir);
  }

  async call<T>(method: string, url: string, body?: unknown, at = this.url): Promise<T> {
    const response = await fetch(`${at}/api/v1${url}`, {
      method,
      signal: AbortSignal.timeout(30_000),
      ...(body !== undefined && { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
    const answer = (await response.json()) as T & { code?: string; message?: string };
    if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${answer.code} ${answer.message}`);
    return answer;
  }

  /** Starts an upgrade, also where the replica that is asked is killed with its answer: it is stored by then, and looked for. */
  async upgrade(wanted: { readonly proxy: string } & Record<string, unknown>): Promise<{ readonly id: string }> {
    try {
      return await this.call<UpgradeView>('POST', '/upgrades', wanted);
    } catch (error) {
      if (!/^POST \/upgrades: 503 SLUICE_CONTROLLER_AWAY|^fetch failed/.test((error as Error).message)) throw error;
      return until(`the upgrade of ${wanted.proxy} is in the list`, async () => {
        const { items } = await this.call<{ items: UpgradeView[] }>('GET', '/upgrades');
        return items.find(({ proxy }) => proxy === wanted.proxy);
      });
    }
  }

  async linked(proxy: string): Promise<void> {
    await until(
      `the agent of ${proxy} is linked`,
      async () => {
        const { connected, epochs } = await this.call<ProxyView>('GET', `/proxies/${proxy}`);
        return connected && epochs.length > 0 ? true : undefined;
      },
      { limitMs: 40_000 },
    );
  }

  /** Until the upgrade is in one of the phases. A terminal phase that is not wanted is an error. */
  async phase(id: string, wanted: readonly Phase[], limitMs = 90_000): Promise<UpgradeView> {
    const view = await until(
      `upgrade ${id} in ${wanted.join(' or ')}`,
      async () => {
        const found = await this.call<UpgradeView>('GET', `/upgrades/${id}`);
        return [...wanted, 'Done', 'Failed', 'RolledBack'].includes(found.phase) ? found : undefined;
      },
      { limitMs, everyMs: 20 },
    );
    if (!wanted.includes(view.phase)) throw new Error(`upgrade ${id} ended ${view.phase}: ${JSON.stringify(view)}`);
    return view;
  }

  async stop(): Promise<void> {
    for (const agent of this.#agents) agent.child.kill('SIGKILL');
    for (const { child } of this.all) child?.kill('SIGKILL');
    for (const dir of this.#dirs) endEpochs(dir);
    for (const balancer of [...this.#balancers, ...this.all.map(({ kube }) => kube)]) balancer.stop();
    this.#upstream.closeAllConnections();
    this.#upstream.close();
  }

  #onLine(id: string, line: string): void {
    const wanted = this.#killAt;
    if (wanted?.id === id && line.includes(`"event":"phase","phase":"${wanted.phase}"`)) {
      this.#killAt = undefined;
      const at = Date.now();
      void this.kill(id).then(() => wanted.killed(at));
    }
    if (!line.includes('leader"')) return;
    const { msg, fence, time } = JSON.parse(line) as { msg: string; fence: number; time: number };
    if (msg === 'leader') this.terms.push({ id, fence, from: time });
    if (msg !== 'no longer the leader') return;
    const term = this.terms.findLast((one) => one.id === id && one.fence === fence);
    if (term !== undefined) term.until ??= time;
  }
}
