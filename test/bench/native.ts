import { writeFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { envoyBinary } from '../harness/envoy-bin.ts';
import type { Targets } from '../harness/load/client.ts';
import type { Block } from '../harness/ports.ts';
import { type Child, start } from '../harness/process.ts';
import { loadResources } from '../harness/resources.ts';
import type { UpstreamPorts } from '../harness/upstream/server.ts';

export interface NativeOptions {
  readonly block: Block;
  readonly upstream: UpstreamPorts;
  readonly targets: Targets;
  readonly adminPort: number;
  /** Envoys of one base id take over from each other; without one hot restart is off. */
  readonly baseId?: number;
  /** Further flags of every epoch, such as `--drain-time-s`. */
  readonly flags: readonly string[];
  readonly concurrency?: number;
}

/** An Envoy as people run it: by its flags, with the very listeners and clusters that ours has, and nothing of ours. */
export class NativeEnvoy {
  readonly child: Child;
  readonly adminPort: number;
  /** Epoch ms of `closing and draining listeners`: its drain's start. */
  readonly draining: Promise<number>;
  /** Epoch ms at which its child told it to end. */
  readonly told: Promise<number>;

  private constructor(child: Child, adminPort: number, draining: Promise<number>, told: Promise<number>) {
    this.child = child;
    this.adminPort = adminPort;
    this.draining = draining;
    this.told = told;
  }

  /** Resolves when its workers run. */
  static async start(version: string, restartEpoch: number, options: NativeOptions): Promise<NativeEnvoy> {
    const { block, targets, upstream, adminPort, baseId } = options;
    const { listeners, clusters } = loadResources(targets, upstream, 'static');
    const bootstrap = {
      node: { id: 'native', cluster: 'native' },
      admin: { address: { socket_address: { address: targets.host, port_value: adminPort } } },
      static_resources: { listeners, clusters },
    };
    const file = path.join(block.dir, `native-${adminPort}-${restartEpoch}.json`);
    await writeFile(file, JSON.stringify(bootstrap));
    const identity =
      baseId === undefined
        ? ['--disable-hot-restart']
        : ['--base-id', String(baseId), '--restart-epoch', String(restartEpoch)];
    const draining = Promise.withResolvers<number>();
    const told = Promise.withResolvers<number>();
    const args = ['-c', file, ...identity, '--concurrency', String(options.concurrency ?? 2), ...options.flags];
    const child = await start(await envoyBinary(version), args, {
      name: `envoy ${version}, epoch ${restartEpoch}`,
      ready: /all dependencies initialized\. starting workers/,
      onLine: (line) => {
        if (line.includes('closing and draining listeners')) draining.resolve(Date.now());
        if (line.includes('shutting down due to child request')) told.resolve(Date.now());
      },
    });
    return new NativeEnvoy(child, adminPort, draining.promise, told.promise);
  }

  /** Its drain's start. @throws Error when it does not come */
  async drainStart(limitMs = 10_000): Promise<number> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${this.child.name} does not drain:\n${this.child.tail}`)), limitMs);
    });
    try {
      return await Promise.race([this.draining, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  admin(method: 'GET' | 'POST', url: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const call = http.request(
        { host: '127.0.0.1', port: this.adminPort, method, path: url, agent: false, timeout: 5_000 },
        (response) => {
          let text = '';
          response.setEncoding('utf8').on('data', (chunk: string) => {
            text += chunk;
          });
          response.on('end', () => resolve(text));
        },
      );
      call.on('timeout', () => call.destroy(new Error(`the admin of ${this.child.name} does not answer`)));
      call.on('error', reject);
      call.end();
    });
  }
}
