import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { ControllerProcess } from './controller.ts';
import { envoyBinary } from './envoy-bin.ts';
import { endEpochs, KeeperProcess } from './keeper.ts';
import { FAILING, meshResources } from './mesh.ts';
import { claimBlock } from './ports.ts';
import { until } from './process.ts';

export interface TestFleet {
  readonly controller: ControllerProcess;
  /** Names are `edge-0`, `edge-1`, ... */
  readonly proxies: readonly FleetProxy[];
  close(): Promise<void>;
}

export interface FleetOptions {
  readonly count: number;
  readonly from: string;
  readonly to: string;
  /** Whose `to` passes every check and dies when it is started. */
  readonly broken?: readonly string[];
  /** Whose `to` starts and serves as it should, and answers each request with 500. */
  readonly failing?: readonly string[];
  /** More of the controller's config. */
  readonly config?: (proxies: readonly FleetProxy[]) => Record<string, unknown> | Promise<Record<string, unknown>>;
}

export interface FleetProxy {
  readonly name: string;
  readonly port: number;
  /** Of its agent: /metrics, /stats/prometheus. */
  readonly statusPort: number;
}

/** Several proxies of one controller; each has its agent, its Envoy, its listener and the zone `z0` or `z1`. */
export async function startFleet(options: FleetOptions): Promise<TestFleet> {
  const { count, from, to, broken = [], failing = [] } = options;
  const block = await claimBlock();
  const [upstreamPort, apiPort, xdsPort] = [await block.port(), await block.port(), await block.port()];
  const upstream = http.createServer((_request, response) => response.end('done\n'));
  upstream.keepAliveTimeout = 120_000;
  await new Promise<void>((resolve) => upstream.listen(upstreamPort, '127.0.0.1', resolve));
  const resources = path.join(block.dir, 'resources');
  const proxies: (FleetProxy & { readonly dir: string })[] = [];
  for (let n = 0; n < count; n++) {
    const name = `edge-${n}`;
    const port = await block.port();
    mkdirSync(path.join(resources, name), { recursive: true });
    const own = JSON.stringify({ resources: meshResources(port, upstreamPort) });
    writeFileSync(path.join(resources, name, 'all.json'), own);
    proxies.push({ name, port, statusPort: await block.port(), dir: path.join(block.dir, name) });
  }
  const bootstrap = path.join(block.dir, 'envoy.json');
  writeFileSync(bootstrap, '{}');
  const state = path.join(block.dir, 'state.db');
  const log = path.join(block.dir, 'controller.log');
  const controller = await ControllerProcess.start({
    ...{ apiPort, xdsPort, resources, state, log },
    config: (await options.config?.(proxies)) ?? {},
  });
  const agents: KeeperProcess[] = [];
  const fleet: TestFleet = {
    controller,
    proxies,
    async close() {
      for (const agent of agents) agent.child.kill('SIGKILL');
      controller.child.kill('SIGKILL');
      for (const { dir } of proxies) endEpochs(dir);
      upstream.closeAllConnections();
      upstream.close();
      await block.release();
    },
  };
  try {
    for (const [n, { name, port, statusPort, dir }] of proxies.entries()) {
      mkdirSync(dir);
      const envoys = path.join(block.dir, `envoys-${n}`);
      await linkVersion(envoys, from);
      if (broken.includes(name)) await breakVersion(envoys, to);
      else if (failing.includes(name)) await failVersion(envoys, to);
      else await linkVersion(envoys, to);
      const agent = await KeeperProcess.start({
        proxy: name,
        dir,
        envoy: from,
        envoys,
        bootstrap,
        baseId: block.baseId(),
        concurrency: 1,
        statusAddress: `127.0.0.1:${statusPort}`,
        labels: { zone: `z${n % 2}` },
        controllers: [controller.url],
        xds: `127.0.0.1:${xdsPort}`,
      });
      agents.push(agent);
      await controller.linked(name);
      await until(`${name} answers`, async () =>
        (await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } })).ok ? true : undefined,
      );
    }
  } catch (error) {
    await fleet.close();
    throw error;
  }
  return fleet;
}

async function linkVersion(envoys: string, version: string): Promise<void> {
  mkdirSync(path.join(envoys, version), { recursive: true });
  symlinkSync(await envoyBinary(version), path.join(envoys, version, 'envoy'));
}

async function breakVersion(envoys: string, version: string): Promise<void> {
  await scriptVersion(envoys, version, 'exit 1');
}

/** The runtime decides by which route of `meshResources` a request goes. */
async function failVersion(envoys: string, version: string): Promise<void> {
  const layers = [{ name: 'bad', static_layer: { [FAILING]: 100 } }];
  await scriptVersion(
    envoys,
    version,
    `exec "$REAL" "$@" --config-yaml '${JSON.stringify({ layered_runtime: { layers } })}'`,
  );
}

/** An Envoy that answers what is asked before it is started, and does `line` when it is. */
async function scriptVersion(envoys: string, version: string, line: string): Promise<void> {
  mkdirSync(path.join(envoys, version), { recursive: true });
  const file = path.join(envoys, version, 'envoy');
  const asks = '*--version*|*--hot-restart-version*|*--mode*validate*';
  const real = await envoyBinary(version);
  writeFileSync(file, `#!/bin/sh\nREAL=${real}\ncase "$*" in ${asks}) exec "$REAL" "$@";; esac\n${line}\n`);
  chmodSync(file, 0o755);
}
