import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { epochFolders } from '@sluice/agent/epochs/folder';
import { untilEnded } from '@sluice/agent/native/process-end';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { endEpochs } from '../harness/keeper.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { until } from '../harness/process.ts';

const MAIN = path.join(import.meta.dirname, '../harness/front-main.ts');

interface Line {
  readonly message: string;
  readonly [field: string]: unknown;
}

/** A process that becomes Envoy, with the log of Sluice's part (front and helper) as events. */
class Front {
  readonly child: ChildProcess;
  readonly lines: Line[] = [];
  readonly exited: Promise<unknown>;
  readonly #waiting: { message: string; found: (line: Line) => void }[] = [];

  constructor(config: Record<string, unknown>) {
    const args = ['--conditions=sluice-source', MAIN, JSON.stringify(config)];
    this.child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.exited = once(this.child, 'exit');
    fronts.push(this);
    createInterface({ input: this.child.stderr! }).on('line', (text) => {
      // Envoy's own log comes the same way.
      if (!text.startsWith('{')) return;
      const line = JSON.parse(text) as Line;
      this.lines.push(line);
      for (const { message, found } of this.#waiting) if (message === line.message) found(line);
    });
  }

  line(message: string): Promise<Line> {
    const already = this.lines.find((line) => line.message === message);
    if (already) return Promise.resolve(already);
    return new Promise((found, reject) => {
      this.#waiting.push({ message, found });
      const tail = () => this.lines.map((line) => JSON.stringify(line)).join('\n');
      setTimeout(() => reject(new Error(`"${message}" not within 30 s:\n${tail()}`)), 30_000).unref();
    });
  }
}

let block: Block;
let port: number;
let dir: string;
let fronts: Front[];
let config: Record<string, unknown>;

beforeEach(async () => {
  block = await claimBlock();
  port = await block.port();
  dir = path.join(block.dir, 'run');
  mkdirSync(dir);
  fronts = [];
  const bootstrap = path.join(block.dir, 'envoy.json');
  writeFileSync(bootstrap, JSON.stringify(directBootstrap(port)));
  config = {
    proxy: 'edge',
    dir,
    bootstrap,
    envoy: await envoyBinary('1.38.3'),
    baseId: block.baseId(),
    concurrency: 2,
    policy: { http1: { silentIdleGraceMs: 1_000 } },
  };
});

afterEach(async () => {
  endEpochs(dir);
  for (const front of fronts) front.child.kill('SIGKILL');
  await Promise.all(fronts.map((front) => front.exited));
  await block.release();
});

function directBootstrap(listen: number): unknown {
  const hcm = {
    '@type': 'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
    stat_prefix: 'in',
    route_config: {
      virtual_hosts: [
        {
          name: 'all',
          domains: ['*'],
          routes: [{ match: { prefix: '/' }, direct_response: { status: 200, body: { inline_string: 'done\n' } } }],
        },
      ],
    },
    http_filters: [
      {
        name: 'router',
        typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router' },
      },
    ],
  };
  const address = { socket_address: { address: '127.0.0.1', port_value: listen } };
  const listener = { name: 'in', address, filter_chains: [{ filters: [{ name: 'hcm', typed_config: hcm }] }] };
  return { static_resources: { listeners: [listener] } };
}

/** Until a request is answered: a first epoch has nobody who could say that it serves. */
async function untilAnswering(): Promise<void> {
  const answered = async () => ((await fetch(`http://127.0.0.1:${port}/`)).ok ? true : undefined);
  await until('a request is answered', answered, { limitMs: 20_000 });
}

function states(): (string | undefined)[] {
  return epochFolders(path.join(dir, 'epochs')).map((folder) => folder.readMeta()?.state);
}

test.each([
  ['by hot restart', true],
  ['without hot restart', false],
])(
  'the process itself becomes Envoy, an upgrade under load loses nothing, and nobody of ours stays: %s',
  async (_, hotRestart) => {
    config = { ...config, hotRestart };
    const first = new Front(config);
    await first.line('becoming Envoy');
    await untilAnswering();
    expect(readlinkSync(`/proc/${first.child.pid}/exe`)).toBe(config.envoy);

    const load = newConnections(port, 300);
    const to = await envoyBinary('1.40.0');
    const second = new Front({ ...config, envoy: to });
    await second.line('old epoch reset');
    await first.exited;
    expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
    expect(readlinkSync(`/proc/${second.child.pid}/exe`)).toBe(to);
    expect(states()).toEqual(['ended', 'serving']);

    // The helper has ended, and Envoy is no parent of a zombie.
    const helper = second.lines.find((line) => line.helper !== undefined)?.helper as number;
    expect(await untilEnded(helper, 10_000)).toBe(true);
    const children = readFileSync(`/proc/${second.child.pid}/task/${second.child.pid}/children`, 'latin1');
    expect(children.trim()).toBe('');
  },
);

test('a target that fails its checks ends the new process and leaves the old epoch alone', async () => {
  const first = new Front(config);
  await first.line('becoming Envoy');
  await untilAnswering();
  const broken = path.join(block.dir, 'broken.json');
  writeFileSync(broken, '{"static_resources":{"listeners":[{"name":3}]}}');
  const second = new Front({ ...config, bootstrap: broken });
  expect(await second.line('front failed')).toMatchObject({ code: 'PHASE_REFUSED' });
  await second.exited;
  expect(second.child.exitCode).toBe(7);
  await untilAnswering();
  expect(first.child.exitCode).toBeNull();
});
