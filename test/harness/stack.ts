import { mkdir, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { PolicyPatch, ProxyView } from '@sluice/contract';
import { Api } from './api.ts';
import { envoyBinaries } from './envoy-bin.ts';
import { endEpochs } from './keeper.ts';
import type { Targets } from './load/client.ts';
import type { Block } from './ports.ts';
import { type Child, start, until } from './process.ts';
import { loadResources, writeResources } from './resources.ts';
import type { UpstreamPorts } from './upstream/server.ts';

export interface StackOptions {
  readonly block: Block;
  readonly upstream: UpstreamPorts;
  /** The first Envoy's version; `versions` are those that an upgrade may name. */
  readonly from: string;
  readonly versions: readonly string[];
  readonly policy?: PolicyPatch;
  readonly concurrency?: number;
  readonly proxy?: string;
  /** Starts the keeper with these changes of its configuration. */
  readonly agent?: Readonly<Record<string, unknown>>;
}

type AgentConfig = { readonly dir: string } & Readonly<Record<string, unknown>>;

/** Controller, keeper and Envoys of one proxy, each a process of its own; each can be killed and started again. */
export class Stack {
  readonly proxy: string;
  readonly targets: Targets;
  readonly api: Api;
  readonly dir: string;
  controller: Child | undefined;
  agent: Child | undefined;
  private readonly controllerConfig: object;
  private readonly agentConfig: AgentConfig;
  private readonly onExit = () => this.killEnvoys();

  private constructor(parts: {
    proxy: string;
    targets: Targets;
    api: Api;
    dir: string;
    controller: object;
    agent: AgentConfig;
  }) {
    this.proxy = parts.proxy;
    this.targets = parts.targets;
    this.api = parts.api;
    this.dir = parts.dir;
    this.controllerConfig = parts.controller;
    this.agentConfig = parts.agent;
    process.once('exit', this.onExit);
  }

  /** Everything up to a serving Envoy. */
  static async start(options: StackOptions): Promise<Stack> {
    const { block } = options;
    const proxy = options.proxy ?? 'demo';
    const targets = { host: '127.0.0.1', http: await block.port(), tls: await block.port(), tcp: await block.port() };
    const [apiPort, xdsPort] = [await block.port(), await block.port()];
    const envoys = path.join(block.dir, 'envoys');
    for (const [version, binary] of Object.entries(await envoyBinaries([options.from, ...options.versions]))) {
      await mkdir(path.join(envoys, version), { recursive: true });
      await symlink(binary, path.join(envoys, version, 'envoy'));
    }
    const resources = path.join(block.dir, 'resources');
    await writeResources(resources, loadResources(targets, options.upstream, 'ads'));
    // All else is preset by the keeper: node, admin, ADS, overload manager, filter.
    const bootstrap = path.join(block.dir, 'bootstrap.json');
    await writeFile(bootstrap, '{}\n');
    const stack = new Stack({
      proxy,
      targets,
      api: new Api(apiPort),
      dir: block.dir,
      controller: {
        apiAddress: `127.0.0.1:${apiPort}`,
        xdsAddress: `127.0.0.1:${xdsPort}`,
        resources,
        state: path.join(block.dir, 'sluice.db'),
        ...(options.policy === undefined ? {} : { policy: options.policy }),
      },
      agent: {
        proxy,
        dir: path.join(block.dir, 'run'),
        envoy: options.from,
        envoys,
        bootstrap,
        controllers: [`http://127.0.0.1:${apiPort}`],
        xds: `127.0.0.1:${xdsPort}`,
        baseId: block.baseId(),
        concurrency: options.concurrency ?? 2,
        ...options.agent,
      },
    });
    try {
      await stack.startController();
      await stack.startAgent();
      await stack.waitServing();
    } catch (error) {
      await stack.stop();
      throw error;
    }
    return stack;
  }

  async startController(): Promise<Child> {
    this.controller = await this.child('controller', 'controller-main.ts', this.controllerConfig, /controller ready/);
    return this.controller;
  }

  async startAgent(): Promise<Child> {
    this.agent = await this.child('agent', 'keeper-main.ts', this.agentConfig, /keeper ready/);
    return this.agent;
  }

  /** Until the controller sees the proxy serving and its listeners accept. */
  async waitServing(limitMs = 20_000): Promise<ProxyView> {
    const view = await until(
      'the proxy serves',
      async () => {
        const found = await this.api.proxy(this.proxy);
        return found.serving === undefined ? undefined : found;
      },
      { limitMs },
    );
    const url = `http://${this.targets.host}:${this.targets.http}/`;
    const answers = async () => ((await fetch(url, { headers: { connection: 'close' } })).ok ? true : undefined);
    await until('the HTTP listener answers', answers, { limitMs });
    return view;
  }

  async stop(): Promise<void> {
    process.off('exit', this.onExit);
    // The keeper first: it would start a killed Envoy again.
    await this.agent?.stop();
    this.killEnvoys();
    await this.controller?.stop();
  }

  /** By the agent's run folder: it knows of each Envoy, also of one that no controller ever heard of. */
  private killEnvoys(): void {
    endEpochs(this.agentConfig.dir);
  }

  private child(name: string, file: string, config: object, ready: RegExp): Promise<Child> {
    const main = fileURLToPath(new URL(file, import.meta.url));
    return start(process.execPath, ['--conditions=sluice-source', main, JSON.stringify(config)], {
      name,
      ready,
      readyTimeoutMs: 30_000,
      log: path.join(this.dir, `${name}.log`),
    });
  }
}
