import { envoyBinaries } from '../harness/envoy-bin.ts';
import { claimBlock } from '../harness/ports.ts';
import { Stack } from '../harness/stack.ts';
import { spawnUpstream } from '../harness/upstream/handle.ts';
import type { Bench } from './bench.ts';
import type { PopulationOptions, PopulationReport } from './clients/population.ts';
import { Worker } from './clients/worker.ts';
import { NativeEnvoy } from './native.ts';
import { sleep } from './running.ts';
import { buckets, peakToMean, round } from './stats.ts';

const FROM = '1.39.3';
const TO = '1.40.0';
const WINDOW_MS = 45_000;
const WINDOW_S = WINDOW_MS / 1000;
/** How long after the window the native parent ends; what it cuts then is shown, and not in the figure. */
const AFTER_MS = 3_000;
const CONNECTIONS = 5_000;
/** From one request a second to one in 10,000 s; 543 a second in all. */
const POPULATION = { host: '127.0.0.1', connections: CONNECTIONS, openPerSecond: 500, fastest: 1, slowest: 0.0001 };

interface Side {
  readonly side: string;
  readonly open: number;
  readonly buckets: readonly number[];
  readonly reconnects: number;
  readonly byKind: Readonly<Record<string, number>>;
  readonly peak: number;
  readonly meanPerSecond: number;
  readonly peakToMean: number;
  readonly failedInWindow: number;
  readonly failures: readonly string[];
  readonly badConnects: number;
  /** Reconnects in the AFTER_MS after the window: a native parent's exit cuts all that it still holds. */
  readonly afterWindow: number;
}

type Say = (text: string) => void;
/** Starts the proxy; `drain` begins the drain and gives its start in epoch ms. */
type Proxy = { readonly port: number; drain(): Promise<number>; stop(): Promise<void> };
type Clients = Worker<'start' | 'report', PopulationReport>;

/** Reconnects that a drain makes: ours beside Envoy's own two strategies, the same population and window for each. */
export const pacingBench: Bench = async (say) => {
  await envoyBinaries([FROM, TO]);
  const sides: Side[] = [];
  sides.push(await run('ours', ours, say));
  sides.push(await run('native gradual', () => native('gradual'), say));
  sides.push(await run('native immediate', () => native('immediate'), say));
  const [own, gradual, immediate] = sides as [Side, Side, Side];
  return {
    checks: [
      { name: 'connections open at the drain, fewest', value: Math.min(...sides.map((s) => s.open)), atLeast: 5_000 },
      { name: 'peak / mean, ours', value: own.peakToMean, atMost: 1.5 },
      { name: 'peak / mean, ours / native gradual', value: ratio(own, gradual), atMost: 1 },
      { name: 'peak / mean, ours / native immediate', value: ratio(own, immediate), atMost: 1 },
      {
        name: 'reconnects in the window, ours / native gradual',
        value: round(own.reconnects / gradual.reconnects),
        atLeast: 1,
      },
      { name: 'failed requests in the window, ours', value: own.failedInWindow, atMost: 0 },
    ],
    raw: {
      from: FROM,
      to: TO,
      windowMs: WINDOW_MS,
      population: POPULATION,
      method:
        'Each window begins with the drain and has the same length for all sides. A reconnect is counted by its client ' +
        'when it opens a new connection, because the old one was told to leave (GOAWAY, Connection: close) or ended. ' +
        'peak = the fullest bucket of 1 s; mean = reconnects in the window / seconds of the window.',
      sides,
    },
  };
};

function ratio(a: Side, b: Side): number {
  return round(a.peakToMean / b.peakToMean);
}

async function run(side: string, proxy: () => Promise<Proxy>, say: Say): Promise<Side> {
  say(`${side}: starting`);
  const { port, drain, stop } = await proxy();
  const main = new URL('./clients/population-main.ts', import.meta.url);
  const options: PopulationOptions = { ...POPULATION, port };
  const clients: Clients = Worker.start(main, options);
  try {
    const { open } = await clients.ask('start');
    say(`${side}: ${open} connections open, drain`);
    const from = await drain();
    const before = await clients.ask('report');
    await sleep(from + WINDOW_MS - Date.now());
    const within = await clients.ask('report');
    await sleep(from + WINDOW_MS + AFTER_MS - Date.now());
    const after = await clients.ask('report');
    const result = sideOf(side, open, from, before, within, after);
    say(`${side}: ${result.reconnects} reconnects, peak ${result.peak}, mean ${result.meanPerSecond} per second`);
    return result;
  } finally {
    clients.stop();
    await stop();
  }
}

function sideOf(
  side: string,
  open: number,
  from: number,
  before: PopulationReport,
  within: PopulationReport,
  after: PopulationReport,
): Side {
  const times = after.reconnects.map(({ at }) => at);
  const counts = buckets(times, from, WINDOW_MS);
  const { peak, mean, ratio: peakToMeanOf } = peakToMean(counts);
  const byKind: Record<string, number> = {};
  for (const { at, protocol, why } of after.reconnects) {
    if (at >= from && at < from + WINDOW_MS) byKind[`${protocol} ${why}`] = (byKind[`${protocol} ${why}`] ?? 0) + 1;
  }
  return {
    side,
    open,
    buckets: counts,
    reconnects: counts.reduce((sum, count) => sum + count, 0),
    byKind,
    peak,
    meanPerSecond: round(mean),
    peakToMean: round(peakToMeanOf),
    failedInWindow: within.failed - before.failed,
    failures: after.failures,
    badConnects: after.badConnects,
    afterWindow: times.filter((at) => at >= from + WINDOW_MS && at < from + WINDOW_MS + AFTER_MS).length,
  };
}

async function native(strategy: 'gradual' | 'immediate'): Promise<Proxy> {
  const block = await claimBlock();
  const upstream = await spawnUpstream(block);
  const targets = { host: '127.0.0.1', http: await block.port(), tls: await block.port(), tcp: await block.port() };
  const exitAfter = (WINDOW_MS + AFTER_MS / 3) / 1000;
  const flags = ['--drain-time-s', String(WINDOW_S), '--drain-strategy', strategy];
  flags.push('--parent-shutdown-time-s', String(exitAfter));
  const adminPort = await block.port();
  const options = { block, upstream: upstream.ports, targets, adminPort, baseId: block.baseId(), flags };
  const envoys = [await NativeEnvoy.start(FROM, 0, options)];
  return {
    port: targets.http,
    async drain() {
      const [old] = envoys;
      envoys.push(await NativeEnvoy.start(TO, 1, options));
      return (await old?.drainStart()) ?? Number.NaN;
    },
    async stop() {
      for (const { child } of envoys.reverse()) await child.stop();
      await upstream.stop();
      await block.release();
    },
  };
}

/** The pace is the population over the window; silent HTTP/1 is left alone, as the native drain leaves it. */
async function ours(): Promise<Proxy> {
  const block = await claimBlock();
  const upstream = await spawnUpstream(block);
  const stack = await Stack.start({
    block,
    upstream: upstream.ports,
    from: FROM,
    versions: [FROM, TO],
    policy: {
      pacing: { perSecond: Math.round(CONNECTIONS / WINDOW_S), order: 'oldest', scope: 'proxy', adapt: false },
      http1: { silentIdleGraceMs: 2 * WINDOW_MS },
    },
  });
  return {
    port: stack.targets.http,
    async drain() {
      const { id } = await stack.api.create({ proxy: stack.proxy, to: TO });
      const watching = new AbortController();
      const { promise, resolve, reject } = Promise.withResolvers<number>();
      const late = setTimeout(() => reject(new Error('the drain did not start within 60 s')), 60_000);
      void stack.api.watch((item) => {
        if (item.kind !== 'upgrade' || item.upgrade.id !== id) return;
        if (item.upgrade.drainStartedAt !== undefined) resolve(item.upgrade.drainStartedAt);
        if (item.upgrade.phase === 'Failed') reject(new Error(item.upgrade.reason));
      }, watching.signal);
      try {
        return await promise;
      } finally {
        clearTimeout(late);
        watching.abort();
      }
    },
    async stop() {
      await stack.stop();
      await upstream.stop();
      await block.release();
    },
  };
}
