import { createSocket } from 'node:dgram';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CheckResult } from '@sluice/contract';
import { afterEach, describe, expect, it } from 'vitest';
import { ENVOY_VERSIONS, envoyBinary } from '../harness/envoy-bin.ts';
import { endEpochs, KeeperProcess } from '../harness/keeper.ts';
import { Http1Client } from '../harness/load/http1.ts';
import { reconcile } from '../harness/load/reconcile.ts';
import { claimBlock } from '../harness/ports.ts';
import { start, until } from '../harness/process.ts';
import { frontBootstrap, quicBootstrap } from '../harness/quic-bootstrap.ts';
import { askPath, ID_HEADER } from '../harness/upstream/answers.ts';
import { startUpstream } from '../harness/upstream/server.ts';

const AWAY_MS = 3_000;
/** It ends long after the new epoch has said its last word to the old one, 2 s after the handover. */
const LONG = askPath({ size: 10, delay: 4_000 });
const versions = ENVOY_VERSIONS.filter((version) => (process.env.SLUICE_MATRIX ?? version) === version);
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/**
 * What the client's Envoy counts of its connections: `upstream_cx_close_notify` is one for each GOAWAY, of which a connection
 * gets two when it lives as long (conn_pool_base.cc, onGoAway).
 */
async function frontStat(admin: number, name: string): Promise<number> {
  const answer = await fetch(
    `http://127.0.0.1:${admin}/stats?filter=${encodeURIComponent(`^cluster\\.up\\.${name}$`)}`,
  );
  return Number(/: (\d+)/.exec(await answer.text())?.[1]);
}

async function ephemeralPort(): Promise<number> {
  const socket = createSocket('udp4');
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(resolve));
  return port;
}

/** The epochs' listeners, one over QUIC and one over TCP, and an Envoy as HTTP/3 client, which repeats nothing. */
async function rig(from: string, workers: number, ephemeral = false) {
  const block = await claimBlock();
  cleanups.push(() => block.release());
  const port = async () => await block.port();
  const [tcp, http, admin] = [await port(), await port(), await port()];
  const quic = ephemeral ? await ephemeralPort() : await port();
  const ports = {
    http: await port(),
    http2: await port(),
    grpc: await port(),
    tcp: await port(),
    control: await port(),
  };
  const upstream = await startUpstream(ports);
  cleanups.push(() => upstream.close());
  const dir = path.join(block.dir, 'run');
  const bootstrap = path.join(block.dir, 'envoy.json');
  const front = path.join(block.dir, 'front.json');
  writeFileSync(bootstrap, JSON.stringify(quicBootstrap({ quic, tcp, upstream: ports.http })));
  writeFileSync(front, JSON.stringify(frontBootstrap({ listen: http, quic, admin })));
  cleanups.push(() => endEpochs(dir));
  const config = {
    proxy: 'quic',
    dir,
    bootstrap,
    envoy: await envoyBinary(from),
    baseId: block.baseId(),
    concurrency: workers,
    policy: { http1: { silentIdleGraceMs: 1_000 } },
  };
  return { config, front, http, tcp, admin, upstream };
}

async function startKeeper(config: Parameters<typeof KeeperProcess.start>[0]): Promise<KeeperProcess> {
  const keeper = await KeeperProcess.start(config);
  cleanups.push(() => keeper.child.kill('SIGKILL'));
  return keeper;
}

async function startClient({ front, http }: { front: string; http: number }): Promise<void> {
  const client = await start(await envoyBinary('1.40.0'), ['-c', front, '--disable-hot-restart', '-l', 'error'], {});
  cleanups.push(() => client.stop());
  await until('the way through both answers', async () => {
    const response = await fetch(`http://127.0.0.1:${http}/`);
    await response.arrayBuffer();
    return response.ok ? true : undefined;
  });
}

/** Raw HTTP/1 clients -> an Envoy as HTTP/3 client, which repeats nothing -> the epochs -> the upstream. */
describe.each(versions)('HTTP/3, Envoy %s', (from) => {
  const to = ENVOY_VERSIONS[ENVOY_VERSIONS.indexOf(from) + 1] ?? from;

  it.each([
    { how: 'short or long', killed: false, workers: 2, ephemeral: false },
    // Not with the newest, which alone is part of `npm test`.
    ...(from === '1.39.3'
      ? [
          // On such a port a UDP socket could be anything: the configuration tells what it is.
          { how: 'also with one worker, on an ephemeral port', killed: false, workers: 1, ephemeral: true },
          {
            how: 'also when the agent is killed and its successor goes on',
            killed: true,
            workers: 2,
            ephemeral: false,
          },
        ]
      : []),
  ])('hands over with no request failed, $how', async ({ killed, workers, ephemeral }) => {
    const all = await rig(from, workers, ephemeral);
    const { config, http, admin, upstream } = all;
    let keeper = await startKeeper(config);
    await startClient(all);
    const targets = { host: '127.0.0.1', http, tls: 0, tcp: 0 };
    const load = new Http1Client(targets, { name: 'http3', connections: 12, rate: 200, maxDelayMs: 1_500 });
    load.start();
    const answered = (count: number) => until('answers', () => (load.tally.answered.size > count ? true : undefined));
    await answered(200);
    const ids = Array.from({ length: 12 }, (_, i) => `long/${i}`);
    const ask = (id: string) => fetch(`http://127.0.0.1:${http}${LONG}`, { headers: { [ID_HEADER]: id } });
    const long = Promise.all(ids.map(ask));
    await until('the long requests', () => (ids.every((id) => upstream.seen.has(id)) ? true : undefined));
    const connected = await frontStat(admin, 'upstream_cx_active');
    expect(connected).toBeGreaterThan(1);
    const answer = await keeper.call('POST', '/v1/upgrade', { to: await envoyBinary(to) });
    expect(answer.body.ok, JSON.stringify(answer.body)).toBe(true);
    if (killed) {
      await keeper.line('new epoch serves');
      keeper.child.kill('SIGKILL');
      await keeper.child.ended;
      // Longer than a client waits for a QUIC connection that says nothing.
      await sleep(AWAY_MS);
      keeper = await startKeeper(config);
    }
    expect((await long).map(({ status }) => status)).toEqual(ids.map(() => 200));
    const reset = await keeper.line('old epoch reset', () => true, 40_000);
    await answered(load.tally.answered.size + 400);
    await load.stop();
    expect(load.tally.failures).toEqual([]);
    const waited = { name: 'long', answered: new Set(ids), refused: new Set<string>(), failedIds: new Set<string>() };
    expect(reconcile([load.tally, waited], upstream.seen)).toEqual([]);
    expect(reset.cut).toBe(0);
    expect(await frontStat(admin, 'upstream_cx_close_notify')).toBeGreaterThanOrEqual(connected);
    expect((await keeper.epochs()).map(({ epoch, state }) => [epoch, state])).toEqual([[1, 'serving']]);
  });

  it('a pace that Envoy’s own drain would break is refused; by the default TCP beside it loses nothing either', async () => {
    const all = await rig(from, 2);
    const { config, http, tcp, upstream } = all;
    const paced = { ...config, policy: { ...config.policy, pacing: { perSecond: 5 } } };
    const first = await startKeeper(paced);
    await startClient(all);
    const loads = [
      new Http1Client({ host: '127.0.0.1', http, tls: 0, tcp: 0 }, { name: 'http3', connections: 6, rate: 60 }),
      new Http1Client(
        { host: '127.0.0.1', http: tcp, tls: 0, tcp: 0 },
        { name: 'keep-alive', connections: 12, rate: 120 },
      ),
    ];
    for (const load of loads) load.start();
    const answers = async (more: number) => {
      const wanted = loads.map(({ tally }) => tally.answered.size + more);
      const there = () => loads.every(({ tally }, i) => tally.answered.size > (wanted[i] ?? 0));
      await until('answers', () => (there() ? true : undefined));
    };
    await answers(100);
    const target = { to: await envoyBinary(to) };
    const policyOf = ({ body }: { body: Record<string, unknown> }) =>
      (body.checks as CheckResult[]).find(({ name }) => name === 'policy');
    const refused = await first.call('POST', '/v1/upgrade', target);
    expect(refused.body.ok).toBe(false);
    expect(policyOf(refused)).toMatchObject({ ok: false, code: 'SLUICE_PREFLIGHT_POLICY' });
    expect(policyOf(refused)?.found).toMatch(/^pacing\.perSecond 5: Envoy’s own drain, .* \(quic\)/);
    expect((await first.epochs()).map(({ epoch, state }) => [epoch, state])).toEqual([[0, 'serving']]);
    first.child.kill('SIGKILL');
    await first.child.ended;

    const keeper = await startKeeper(config);
    const taken = await keeper.call('POST', '/v1/upgrade', target);
    expect(taken.body.ok, JSON.stringify(taken.body)).toBe(true);
    expect(policyOf(taken)?.found).toMatch(/^Envoy’s own drain, .* \(quic\), tells TCP connections too/);
    const reset = await keeper.line('old epoch reset', () => true, 40_000);
    expect(reset.cut).toBe(0);
    await answers(100);
    await Promise.all(loads.map((load) => load.stop()));
    expect(loads.flatMap(({ tally }) => tally.failures)).toEqual([]);
    expect(
      reconcile(
        loads.map(({ tally }) => tally),
        upstream.seen,
      ),
    ).toEqual([]);
    expect((await keeper.epochs()).map(({ epoch, state }) => [epoch, state])).toEqual([[1, 'serving']]);
  });
});
