import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { identify } from '@sluice/agent/epochs/proc';
import { AdminConnection } from '@sluice/agent/witnesses/admin';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { endEpochs, KeeperProcess } from '../harness/keeper.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { until } from '../harness/process.ts';
import { staticBootstrap } from '../harness/static-bootstrap.ts';
import { type StaticProxy, staticProxy } from '../harness/static-proxy.ts';

let block: Block;
let proxy: StaticProxy;
let port: number;
let upstreamPort: number;
let bootstrap: string;
let dir: string;
let agent: KeeperProcess;

beforeEach(async () => {
  block = await claimBlock();
  proxy = await staticProxy(block, (request, response) => {
    setTimeout(() => response.end('done\n'), request.url === '/slow' ? 2_000 : 0);
  });
  ({ port, upstreamPort, dir, bootstrap } = proxy);
  agent = await KeeperProcess.start({
    proxy: 'edge',
    dir,
    bootstrap,
    envoy: await envoyBinary('1.40.0'),
    baseId: block.baseId(),
    concurrency: 2,
    policy: { http1: { silentIdleGraceMs: 500 } },
  });
});

afterEach(async () => {
  agent.child.kill('SIGKILL');
  endEpochs(dir);
  proxy.close();
  await block.release();
});

test('SIGTERM drains: a request in flight is answered, then Envoy and the agent end', async () => {
  const pid = (await agent.serving()).pid;
  const slow = new Promise<string>((resolve, reject) => {
    const call = http.get({ port, host: '127.0.0.1', path: '/slow', agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => resolve(text));
    });
    call.on('error', reject);
  });
  await until('the request is with the upstream', async () => ((await requests()) > 0 ? true : undefined));
  agent.child.kill('SIGTERM');
  expect(await slow).toBe('done\n');
  expect(await agent.child.ended).toMatchObject({ code: 0 });
  expect(identify(pid)).toBeUndefined();
});

test('a changed bootstrap is a hot restart, under load nothing is lost; an unchanged one is none', async () => {
  const load = newConnections(port, 200);
  replace(readFileSync(bootstrap, 'utf8'));
  replace(JSON.stringify({ ...(staticBootstrap(port, upstreamPort) as object), stats_flush_interval: '6s' }));
  await agent.line('new epoch serves', (l) => l.epoch === 1);
  await agent.line('old epoch reset');
  expect((await agent.epochs()).map((e) => e.epoch)).toEqual([1]);
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
});

test('a changed bootstrap that Envoy refuses leaves the serving epoch untouched', async () => {
  replace('{"static_resources": {"listeners": [{"name": 5}]}}');
  await agent.line('hot restart refused; the serving epoch is untouched');
  expect((await agent.serving()).epoch).toBe(0);
});

test('SIGUSR1 is passed on: Envoy lives on and serves', async () => {
  const { pid } = await agent.serving();
  agent.child.kill('SIGUSR1');
  await agent.line('signal', (l) => l.signal === 'SIGUSR1');
  expect(await (await fetch(`http://127.0.0.1:${port}/`)).text()).toBe('done\n');
  expect((await agent.serving()).pid).toBe(pid);
});

function replace(text: string): void {
  writeFileSync(`${bootstrap}.next`, text);
  renameSync(`${bootstrap}.next`, bootstrap);
}

async function requests(): Promise<number> {
  const admin = new AdminConnection(path.join(dir, 'epochs', '0', 'admin.sock'));
  try {
    return (await admin.downstream()).requestsActive;
  } finally {
    admin.close();
  }
}
