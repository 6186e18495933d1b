import { readdir } from 'node:fs/promises';
import { runIdle } from '@sluice/agent/native/sched';
import { isTerminal, type MethodName, type PolicyPatch, type UpgradeView } from '@sluice/contract';
import { Follower } from '../demo/upgrade.ts';
import { claimBlock } from '../harness/ports.ts';
import { Stack } from '../harness/stack.ts';
import { spawnUpstream } from '../harness/upstream/handle.ts';
import { NativeEnvoy } from './native.ts';

const VERSIONS = ['1.39.3', '1.40.0'] as const;
const START_LIMIT_MS = 30_000;
/** Bare hot restart: the parent ends so long after the child started. */
export const BARE_PARENT_S = 7;
const BARE_FLAGS = ['--drain-time-s', '5', '--parent-shutdown-time-s', String(BARE_PARENT_S)];
/** What a bare drain of 5 s is compared with: silent HTTP/1 is closed after the same time. */
const POLICY: PolicyPatch = { http1: { silentIdleGraceMs: 5_000 }, maxDrainMs: 60_000 };

/** A proxy that can be handed over again and again. */
export interface Side {
  /** What serves. Sides that have the same are loaded alike. */
  readonly proxy: 'Envoy' | 'HAProxy' | 'Node';
  /** HTTP/1, and HTTP/2 without TLS; most have both on one port. */
  readonly port: number;
  readonly http2Port: number;
  /** Hands over; resolves when the new side has taken over, with the pid of the old one if there is one. */
  handOver(): Promise<number | undefined>;
  /** Until it is ready for the next one. */
  settled(): Promise<void>;
  /** Ids that the upstream saw more than once. */
  twice(): Promise<number>;
  stop(): Promise<void>;
}

export async function oursSide(method: MethodName): Promise<Side> {
  const block = await claimBlock();
  const upstream = await spawnUpstream(block);
  const [from] = VERSIONS;
  const agent = { hotRestart: method === 'hot-restart' };
  const stack = await Stack.start({ block, upstream: upstream.ports, from, versions: VERSIONS, policy: POLICY, agent });
  // It stands for one on another machine, whose cores are not the proxy's: here it takes what nobody else wants.
  const { pid: controller = 0 } = stack.controller ?? {};
  for (const tid of await readdir(`/proc/${controller}/task`)) runIdle(Number(tid));
  const watching = new AbortController();
  const follower = new Follower(() => {});
  void stack.api.watch((item) => follower.take(item), watching.signal).catch(() => {});
  let round = 0;
  let id = '';
  const upgraded = (what: string, good: (view: UpgradeView) => boolean) =>
    follower.when(`${method}: ${what}`, START_LIMIT_MS, () => {
      const view = follower.upgrades.get(id);
      if (view?.phase === 'Failed' || view?.phase === 'RolledBack') throw new Error(`${method}: ${view.reason}`);
      return view !== undefined && good(view) ? view : undefined;
    });
  return {
    proxy: 'Envoy',
    port: stack.targets.http,
    http2Port: stack.targets.http,
    async handOver() {
      const view = await stack.api.proxy(stack.proxy);
      const old = view.epochs.find(({ epoch }) => epoch === view.serving?.epoch);
      if (old === undefined) throw new Error('no epoch serves');
      const to = VERSIONS[++round % VERSIONS.length] ?? from;
      ({ id } = await stack.api.create({ proxy: stack.proxy, to, method }));
      await upgraded('the new epoch serves', ({ drainStartedAt }) => drainStartedAt !== undefined);
      return old.pid;
    },
    async settled() {
      await upgraded('done', ({ phase }) => isTerminal(phase));
    },
    twice: () => twice(upstream),
    async stop() {
      watching.abort();
      await stack.stop();
      await upstream.stop();
      await block.release();
    },
  };
}

/**
 * `bare`: a hot restart by flags; `plain`: the old one is ended by SIGTERM, then the new one is started; `none`: nothing is
 * done, which shows what the machine and the clients alone do to the same figures.
 */
export async function nativeSide(kind: 'bare' | 'plain' | 'none'): Promise<Side> {
  const block = await claimBlock();
  const upstream = await spawnUpstream(block);
  const targets = { host: '127.0.0.1', http: await block.port(), tls: await block.port(), tcp: await block.port() };
  const adminPort = await block.port();
  const base = kind === 'bare' ? { baseId: block.baseId(), flags: BARE_FLAGS } : { flags: [] };
  const options = { block, upstream: upstream.ports, targets, adminPort, ...base };
  let round = 0;
  let serving = await NativeEnvoy.start(VERSIONS[0], 0, options);
  return {
    proxy: 'Envoy',
    port: targets.http,
    http2Port: targets.http,
    async handOver() {
      if (kind === 'none') return undefined;
      const old = serving;
      round++;
      if (kind === 'plain') await old.child.stop();
      serving = await NativeEnvoy.start(VERSIONS[round % VERSIONS.length] ?? VERSIONS[0], round, options);
      return old.child.pid;
    },
    async settled() {},
    twice: () => twice(upstream),
    async stop() {
      await serving.child.stop();
      await upstream.stop();
      await block.release();
    },
  };
}

export async function twice(upstream: { seen(): Promise<Map<string, number>> }): Promise<number> {
  return [...(await upstream.seen()).values()].filter((count) => count > 1).length;
}
