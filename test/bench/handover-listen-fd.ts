import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { signal } from '@sluice/agent/epochs/proc';
import { CommandFolder } from '@sluice/agent/listen-fd/command/epoch';
import { CliAgent } from '../harness/cli-agent.ts';
import { HAPROXY_COMMAND, haproxyConfig } from '../harness/haproxy.ts';
import { claimBlock } from '../harness/ports.ts';
import { type Child, start } from '../harness/process.ts';
import { spawnUpstream } from '../harness/upstream/handle.ts';
import { type Side, twice } from './handover-sides.ts';

/** The old server ends at the latest so long after the take-over. */
const MAX_DRAIN_MS = 20_000;
/** As docs/listen-fd.md says: short collections of what is young, and none of the whole heap while it is new. */
const HEAP = ['--min-semi-space-size=4', '--max-semi-space-size=4', '--initial-old-space-size=256'];
const BEHIND = import.meta.resolve('@sluice/agent/listen-fd/behind');

/**
 * A Node server on the published helper: the next one takes its listen sockets. It answers itself, there is no upstream.
 * `warm`: started as docs/listen-fd.md says; `cold`: as any server. `plain`: as any server too; the old one is ended by
 * SIGKILL, for by SIGTERM it would drain, and then the next one is started; `none`: nothing is done.
 */
export async function nodeSide(kind: 'warm' | 'cold' | 'plain' | 'none'): Promise<Side> {
  const warm = kind === 'warm' || kind === 'none';
  const block = await claimBlock();
  const [port, http2Port] = [await block.port(), await block.port()];
  const config = {
    dir: block.dir,
    http1: [`127.0.0.1:${port}`],
    http2: [`127.0.0.1:${http2Port}`],
    maxDrainMs: MAX_DRAIN_MS,
    warmUp: warm,
    seenIn: path.join(block.dir, 'seen'),
  };
  // As docs/listen-fd.md says: what one process compiled is there for the next one, from the second handover on.
  const compiled = { NODE_COMPILE_CACHE: path.join(block.dir, 'compiled') };
  const env = { ...process.env, ...(warm && compiled) };
  const flags = warm ? [...HEAP, '--import', BEHIND] : [];
  await mkdir(config.seenIn);
  const main = fileURLToPath(new URL('../harness/listen-fd-server.ts', import.meta.url));
  const launch = () =>
    start(process.execPath, ['--conditions=sluice-source', ...flags, main, JSON.stringify(config)], {
      name: 'server',
      ready: /"event":"serving"/,
      env,
    });
  let serving: Child = await launch();
  return {
    proxy: 'Node',
    port,
    http2Port,
    async handOver() {
      if (kind === 'none') return undefined;
      const old = serving;
      if (kind === 'plain') {
        old.kill();
        await old.ended;
      }
      serving = await launch();
      return old.pid;
    },
    async settled() {},
    async twice() {
      const seen = new Map<string, number>();
      for (const name of await readdir(config.seenIn)) {
        const ids = (await readFile(path.join(config.seenIn, name), 'utf8')).split('\n');
        for (const id of ids) if (id !== '') seen.set(id, (seen.get(id) ?? 0) + 1);
      }
      return [...seen.values()].filter((count) => count > 1).length;
    },
    async stop() {
      await serving.stop();
      await block.release();
    },
  };
}

/** HAProxy under `sluice agent`: to and fro between two configurations, on the same listen sockets. */
export async function haproxySide(binary: string): Promise<Side> {
  const block = await claimBlock();
  const upstream = await spawnUpstream(block);
  const [port, http2Port, tcp] = [await block.port(), await block.port(), await block.port()];
  const files: string[] = [];
  for (const name of ['A', 'B']) {
    const file = path.join(block.dir, `${name}.cfg`);
    await writeFile(file, haproxyConfig({ name, upstream: upstream.ports }));
    files.push(file);
  }
  const listen = { HTTP: `127.0.0.1:${port}`, H2: `127.0.0.1:${http2Port}`, TCP: `127.0.0.1:${tcp}` };
  const agent = await CliAgent.start({
    proxy: 'edge',
    dir: path.join(block.dir, 'run'),
    envoy: binary,
    bootstrap: files[0],
    command: { ...HAPROXY_COMMAND, listen },
  });
  let round = 0;
  return {
    proxy: 'HAProxy',
    port,
    http2Port,
    async handOver() {
      const old = CommandFolder.all(path.join(agent.dir, 'epochs'))
        .map((folder) => folder.readMeta())
        .find((meta) => meta?.state === 'serving');
      if (old === undefined) throw new Error('no epoch serves');
      // Not by the command line: a process of Node starting would be load of our own.
      await post(path.join(agent.dir, 'agent.sock'), { to: binary, bootstrap: files[++round % files.length] });
      await agent.line('new epoch serves', (line) => line.epoch === round);
      return old.pid;
    },
    async settled() {
      await agent.line('old epoch reset', (line) => line.epoch === round - 1);
    },
    twice: () => twice(upstream),
    async stop() {
      agent.child.kill();
      await agent.child.ended;
      for (const folder of CommandFolder.all(path.join(agent.dir, 'epochs'))) {
        const meta = folder.readMeta();
        // A worker of HAProxy ends with its master.
        if (meta) signal(meta, 'SIGKILL');
      }
      await upstream.stop();
      await block.release();
    },
  };
}

function post(socketPath: string, body: object): Promise<void> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath, method: 'POST', path: '/v1/upgrade', timeout: 30_000 }, (response) => {
      response.resume();
      const { statusCode = 0 } = response;
      if (statusCode < 300) resolve();
      else reject(new Error(`the agent answered ${statusCode} to the upgrade`));
    });
    call.on('error', reject);
    call.end(JSON.stringify(body));
  });
}
