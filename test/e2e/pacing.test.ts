import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import path from 'node:path';
import type { Connection, EndedConnection } from '@sluice/contract';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { endEpochs, KeeperProcess } from '../harness/keeper.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { until } from '../harness/process.ts';
import { type StaticProxy, staticProxy } from '../harness/static-proxy.ts';

let block: Block;
let proxy: StaticProxy;
let port: number;
let dir: string;
let keepers: KeeperProcess[];
let members: Member[];
let bootstrap: string;

beforeEach(async () => {
  block = await claimBlock();
  keepers = [];
  members = [];
  proxy = await staticProxy(block);
  ({ port, dir, bootstrap } = proxy);
});

afterEach(async () => {
  for (const member of members) member.session.destroy();
  for (const keeper of keepers) keeper.child.kill('SIGKILL');
  endEpochs(dir);
  proxy.close();
  await block.release();
});

interface Pacing {
  readonly perSecond: number;
  readonly order?: 'oldest' | 'idlest';
}

async function keeper(version: string, pacing: Pacing): Promise<KeeperProcess> {
  const started = await KeeperProcess.start({
    proxy: 'edge',
    dir,
    bootstrap,
    envoy: await envoyBinary(version),
    baseId: block.baseId(),
    concurrency: 2,
    policy: { pacing: { ...pacing, adapt: false } },
  });
  keepers.push(started);
  return started;
}

/** An HTTP/2 connection, and its place among those that were told to leave. */
class Member {
  readonly session: http2.ClientHttp2Session;
  readonly told: Promise<number>;
  place: number | undefined;

  constructor(session: http2.ClientHttp2Session, next: () => number) {
    this.session = session;
    session.on('error', () => {});
    this.told = new Promise((resolve) =>
      session.once('goaway', () => {
        this.place = next();
        resolve(this.place);
      }),
    );
  }

  ask(): Promise<void> {
    const stream = this.session.request({ ':path': '/' });
    return new Promise((resolve, reject) => stream.on('error', reject).on('end', resolve).resume().end());
  }
}

/** One after the other, each with an answer, `apartMs` apart: ages are told apart by some 50 ms. */
async function open(n: number, apartMs: number): Promise<Member[]> {
  let places = 0;
  for (let i = 0; i < n; i += 1) {
    const member = new Member(http2.connect(`http://127.0.0.1:${port}`), () => places++);
    members.push(member);
    await Promise.all([member.ask(), new Promise((resolve) => setTimeout(resolve, apartMs))]);
  }
  return members;
}

/** How each connection of the first epoch ended, as its agent wrote it. */
function ended(): EndedConnection[] {
  const lines = readFileSync(path.join(dir, 'epochs/0/ended.ndjson'), 'utf8').trim().split('\n');
  return lines.map((line) => JSON.parse(line) as EndedConnection);
}

const untold = (all: readonly Member[]) => all.filter((one) => one.place === undefined).length;

/** Neighbours may change places. */
function expectOldestFirst(all: readonly Member[], slack: number): void {
  for (const [age, member] of all.entries()) expect(Math.abs((member.place ?? -1) - age)).toBeLessThanOrEqual(slack);
}

test('connections are told one after the other, the oldest first', async () => {
  const agent = await keeper('1.40.0', { perSecond: 20 });
  const all = await open(60, 40);
  await agent.call('POST', '/v1/upgrade', { to: await envoyBinary('1.39.3') });
  const left = await Promise.race(all.map((one) => one.told.then(() => untold(all))));
  expect(left).toBeGreaterThan(0);
  await Promise.all(all.map((one) => one.told));
  expectOldestFirst(all, 5);
  await agent.line('old epoch reset');
  const turns = ended().flatMap(({ connection }) => (connection.toldAt === undefined ? [] : [connection.toldAt]));
  turns.sort((a, b) => a - b);
  for (const [first, from] of turns.entries()) {
    for (const [last, to] of turns.entries()) {
      // No more than half a second's turns gather while the agent waits for its CPU.
      expect(last - first).toBeLessThanOrEqual((20 * Math.max(0, to - from)) / 1_000 + 10);
    }
  }
  expect(agent.lines.find((line) => line.message === 'connections are told to leave')).toMatchObject({ mode: 'age' });
});

test('an agent that is killed in the middle: its successor goes on where it was', async () => {
  const agent = await keeper('1.40.0', { perSecond: 15 });
  const all = await open(60, 40);
  await agent.call('POST', '/v1/upgrade', { to: await envoyBinary('1.40.0') });
  await all[10]?.told;
  agent.child.kill('SIGKILL');
  await agent.child.ended;
  const successor = await keeper('1.40.0', { perSecond: 15 });
  // Its cut-off stood meanwhile, and ages grew: connections leave as fast as they came at most.
  const begun = await successor.line('connections are told to leave');
  expect(begun).toMatchObject({ mode: 'age', resumed: true });
  await Promise.all(all.map((one) => one.told));
  expectOldestFirst(all, 10);
  await successor.line('old epoch reset');
});

test('the idlest first: chosen one by one, each heard with its first response after its turn', async () => {
  const agent = await keeper('1.40.0', { perSecond: 4, order: 'idlest' });
  const all = await open(24, 0);
  const busy = all.filter((_, n) => n % 2 === 0);
  const quiet = all.filter((_, n) => n % 2 === 1);
  const over = new AbortController();
  const asking = busy.map(async (one) => {
    while (one.place === undefined && !over.signal.aborted) await one.ask().catch(() => {});
  });
  const ports = new Map(all.map((one) => [one.session.socket?.localPort, one]));
  const memberOf = ({ peer }: Connection) => ports.get(Number(peer.slice(peer.lastIndexOf(':') + 1))) as Member;
  await agent.call('POST', '/v1/upgrade', { to: await envoyBinary('1.40.0') });

  // Three later turns have come since: the filter has heard of these.
  const [waking, silent] = [quiet.slice(0, 3), quiet.slice(3)];
  await until('the turn of six silent ones', async () => {
    const { items } = (await agent.call('GET', '/v1/connections?epoch=0')).body as { items?: Connection[] };
    const chosen = new Set(items?.flatMap((one) => (one.marked === true ? [memberOf(one)] : [])));
    return quiet.slice(0, 6).every((one) => chosen.has(one)) ? true : undefined;
  });
  // A mark is heard with a response only.
  expect(untold(quiet)).toBe(quiet.length);
  await Promise.all(waking.map((one) => Promise.all([one.ask(), one.told])));
  // Not by the pressure, which comes when everybody has been chosen.
  expect(untold(busy)).toBeGreaterThan(0);

  await Promise.all(all.map((one) => one.told));
  over.abort();
  await Promise.all(asking);
  await agent.line('old epoch reset');
  const turns = ended()
    .map((one) => one.connection)
    .sort((a, b) => (a.toldAt ?? 0) - (b.toldAt ?? 0))
    .map(memberOf);
  expect(turns).toHaveLength(24);
  // Nobody saw a request of theirs before their turn: the longest silence is the greatest age.
  expect(turns.filter((one) => quiet.includes(one))).toEqual(quiet);
  const mean = (which: readonly Member[], at: (one: Member) => number) =>
    which.reduce((sum, one) => sum + at(one), 0) / which.length;
  expect(mean(quiet, (one) => turns.indexOf(one))).toBeLessThan(mean(busy, (one) => turns.indexOf(one)) - 6);
  // Chosen first, and heard last: by the pressure, at the end.
  expect(mean(silent, ({ place = 0 }) => place)).toBeGreaterThan(mean(busy, ({ place = 0 }) => place));
  expect(agent.lines.find((line) => line.message === 'connections are told to leave')).toMatchObject({ mode: 'mark' });
});

test('without the filter nobody knows the ages: the cut-off sweeps', async () => {
  const agent = await keeper('1.38.3', { perSecond: 20 });
  const all = await open(60, 40);
  await agent.call('POST', '/v1/upgrade', { to: await envoyBinary('1.38.3') });
  const left = await Promise.race(all.map((one) => one.told.then(() => untold(all))));
  expect(left).toBeGreaterThan(0);
  await Promise.all(all.map((one) => one.told));
  await agent.line('old epoch reset');
  expect(agent.lines.find((line) => line.message === 'connections are told to leave')).toMatchObject({ mode: 'sweep' });
});
