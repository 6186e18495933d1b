import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { signal } from '@sluice/agent/epochs/proc';
import { CommandFolder } from '@sluice/agent/listen-fd/command/epoch';
import type { EpochStatus } from '@sluice/contract';
import { test } from 'vitest';
import { CliAgent } from '../harness/cli-agent.ts';
import type { ControllerProcess } from '../harness/controller.ts';
import { findHaproxy, HAPROXY_COMMAND, type HaproxyConfig, haproxyConfig } from '../harness/haproxy.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { spawnUpstream, type UpstreamHandle } from '../harness/upstream/handle.ts';

export const haproxy = await findHaproxy();
if (haproxy.missing !== undefined) console.log(`skipped: ${haproxy.missing}`);
/** A test that needs HAProxy. */
export const it = test.skipIf(haproxy.binary === undefined);

export let block: Block;
export let upstream: UpstreamHandle;
export const agents: CliAgent[] = [];
export const controllers: ControllerProcess[] = [];

/** Ends whatever the rigs of a test have started. */
export async function closeRigs(): Promise<void> {
  for (const agent of agents.splice(0)) {
    agent.child.kill();
    await agent.child.ended;
    for (const folder of CommandFolder.all(path.join(agent.dir, 'epochs'))) {
      const meta = folder.readMeta();
      // A worker of HAProxy ends with its master.
      if (meta) signal(meta, 'SIGKILL');
    }
  }
  for (const controller of controllers.splice(0)) await controller.kill();
  await upstream?.stop();
  await block?.release();
}

export interface Rig {
  readonly agent: CliAgent;
  readonly ports: { readonly http: number; readonly h2: number; readonly tcp: number };
  readonly config: { readonly dir: string } & Record<string, unknown>;
  /** Writes another configuration; its path. */
  write(name: string, more?: Partial<HaproxyConfig>): Promise<string>;
  upgrade(bootstrap: string): Promise<void>;
  epochs(): Promise<EpochStatus[]>;
}

/** HAProxy behind an agent: configuration A serves. */
export async function rig(more: Record<string, unknown> = {}, first: Partial<HaproxyConfig> = {}): Promise<Rig> {
  block = await claimBlock();
  upstream = await spawnUpstream(block);
  const ports = { http: await block.port(), h2: await block.port(), tcp: await block.port() };
  const write = async (name: string, changes: Partial<HaproxyConfig> = {}) => {
    const file = path.join(block.dir, `${name}.cfg`);
    await writeFile(file, haproxyConfig({ name, upstream: upstream.ports, ...changes }));
    return file;
  };
  const listen = { HTTP: `127.0.0.1:${ports.http}`, H2: `127.0.0.1:${ports.h2}`, TCP: `127.0.0.1:${ports.tcp}` };
  const config = {
    proxy: 'edge',
    dir: path.join(block.dir, 'run'),
    envoy: haproxy.binary,
    bootstrap: await write('A', first),
    command: { ...HAPROXY_COMMAND, listen },
    ...more,
  };
  const agent = await CliAgent.start(config);
  agents.push(agent);
  return {
    agent,
    ports,
    config,
    write,
    upgrade: async (bootstrap) => {
      await agent.sluice('agent', 'upgrade', '--to', haproxy.binary as string, '--bootstrap', bootstrap);
    },
    epochs: async () => {
      const text = await agent.sluice('agent', 'status', '-o', 'json');
      return (JSON.parse(text) as { epochs: EpochStatus[] }).epochs;
    },
  };
}

export async function epochsOf(agent: CliAgent): Promise<EpochStatus[]> {
  return (JSON.parse(await agent.sluice('agent', 'status', '-o', 'json')) as { epochs: EpochStatus[] }).epochs;
}

/** Which configuration answers. */
export async function header(port: number): Promise<string | null> {
  const response = await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } });
  await response.arrayBuffer();
  return response.headers.get('x-config');
}

/** Until each client has had some more answers. */
export async function busy(clients: readonly { tally: { total: number } }[]): Promise<void> {
  const before = clients.map(({ tally }) => tally.total);
  const few = 20;
  while (clients.some(({ tally }, i) => tally.total < (before[i] ?? 0) + few))
    await new Promise((r) => setTimeout(r, 50));
}
