import { envoyBinaries } from '../harness/envoy-bin.ts';
import { findHaproxy } from '../harness/haproxy.ts';
import { type Bench, type Check, median } from './bench.ts';
import type { OpenLoopOptions, OpenLoopQuestion, OpenLoopReport } from './clients/open-loop.ts';
import type { OpenLoopAnswer } from './clients/open-loop-main.ts';
import { Worker } from './clients/worker.ts';
import { haproxySide, nodeSide } from './handover-listen-fd.ts';
import { BARE_PARENT_S, nativeSide, oursSide, type Side } from './handover-sides.ts';
import { processEnd, sleep } from './running.ts';
import { percentile, round } from './stats.ts';

const ROUNDS = 9;
const LOAD_PART = 0.3;
const SATURATE = { ms: 1_500, inFlight: 64 };
const SATURATE_TIMES = 4;
/** Of the clients too, whose first seconds are slower: with 1.5 s nothing handed over came out at 0.9 of steady. */
const WARM_UP_MS = 4_000;
const STEADY_MS = 8_000;
/** A request that is in flight at the handover and takes this long: on every side the old one has work until then. */
const HELD_MS = 5_500;
/** From the take-over on, so that each new side is seen for as long. */
const LEAST_AFTER_MS = BARE_PARENT_S * 1000 - 500;
const TAIL_MS = 1_000;
const OLD_LIMIT_MS = 30_000;
/** Two runs of the same thing differ by about this much. */
const NOISE = 0.1;

interface Round {
  readonly rate: number;
  readonly steadyP99: number;
  readonly duringP99: number;
  readonly ratio: number;
  readonly duringMs: number;
  readonly takeOverMs: number;
  readonly requests: number;
  readonly failed: number;
  readonly failures: readonly string[];
  /** p99 of each second from the handover on. */
  readonly p99BySecond: readonly number[];
}

interface Measured {
  readonly side: string;
  readonly ours: boolean;
  readonly rounds: Round[];
  answeredTwice: number;
}

const BARE = 'bare hot restart';
const PLAIN = 'plain restart';
const NONE = 'no handover';
const OURS: Readonly<Record<string, () => Promise<Side>>> = {
  'hot-restart': () => oursSide('hot-restart'),
  'reuse-port': () => oursSide('reuse-port'),
  'listen-fd, Node server': nodeSide,
};
const NATIVE: Readonly<Record<string, () => Promise<Side>>> = {
  [BARE]: () => nativeSide('bare'),
  [PLAIN]: () => nativeSide('plain'),
  [NONE]: () => nativeSide('none'),
};

/** Requests that fail and the latency that a handover costs, each method beside a bare hot restart and a plain restart. */
export const handoverBench: Bench = async (say) => {
  await envoyBinaries(['1.39.3', '1.40.0']);
  const results: { readonly side: Side; readonly measured: Measured }[] = [];
  try {
    const haproxy = await findHaproxy();
    if (haproxy.missing !== undefined) say(`listen-fd, HAProxy is left out: ${haproxy.missing}`);
    const { binary } = haproxy;
    const own = { ...OURS, ...(binary !== undefined && { 'listen-fd, HAProxy': () => haproxySide(binary) }) };
    for (const [name, start] of Object.entries({ ...own, ...NATIVE })) {
      const measured = { side: name, ours: name in own, rounds: [], answeredTwice: 0 };
      results.push({ side: await start(), measured });
    }
    const rates = await ratesOf(results.map(({ side }) => side));
    say(`30 % of saturation: ${[...rates].map(([proxy, rate]) => `${proxy} ${rate}`).join(', ')} a second`);
    // Round by round, so that what else the machine does falls on all sides alike.
    for (let n = 1; n <= ROUNDS; n++) {
      for (const { side, measured } of results) {
        // It is here for what it loses.
        if (measured.side === PLAIN && n > 1) continue;
        const one = await handOver(side, n, rates.get(side.proxy) ?? 0);
        measured.rounds.push(one);
        say(
          `round ${n}, ${measured.side}: ${one.rate} a second, ${one.failed} of ${one.requests} failed, p99 ${one.duringP99} ms during, ` +
            `${one.steadyP99} ms steady (x ${one.ratio}), taken over after ${one.takeOverMs} ms`,
        );
      }
    }
    for (const { side, measured } of results) measured.answeredTwice = await side.twice();
  } finally {
    for (const { side } of results) await side.stop();
  }
  const all = results.map(({ measured }) => measured);
  return {
    checks: checksOf(all),
    raw: {
      rounds: ROUNDS,
      heldMs: HELD_MS,
      method:
        'Open loop at 30 % of the saturation of the proxy (median of what was found before the rounds, at all sides that have ' +
        'it); each latency counts from the moment at which its request was due. steady: 8 s before the handover. during: from the order to hand over ' +
        '(checks of the new version included) to the end of the old process + 1 s, and to 7.5 s after the take-over at ' +
        'least; a request of 5.5 s is in flight on every side, so that the windows are alike. The controller stands for ' +
        'one on another machine, and runs in what the others leave of the cores. no handover: what the machine and the ' +
        'clients alone do to the same figures. ratio = p99 during / p99 steady of one ' +
        'round; the checks take the median of the rounds, and our median / that of bare, ' +
        `with ${NOISE} for the noise of the machine.`,
      sides: all,
    },
  };
};

function checksOf(all: readonly Measured[]): Check[] {
  const ratioOf = (one: Measured | undefined) => median(one?.rounds.map(({ ratio }) => ratio) ?? []);
  const bare = ratioOf(all.find(({ side }) => side === BARE));
  return all
    .filter(({ ours }) => ours)
    .flatMap((one) => {
      const { side, rounds, answeredTwice } = one;
      return [
        { name: `handovers, ${side}`, value: rounds.length, atLeast: ROUNDS },
        { name: `failed requests, ${side}`, value: sum(rounds.map((r) => r.failed)) + answeredTwice, atMost: 0 },
        { name: `p99 during / steady, ${side}`, value: ratioOf(one), atMost: 1.2 },
        // Of the medians, not the median of the rounds' own: what the machine does comes in bursts, not in whole rounds,
        // so two sides of one round have nothing in common and dividing them adds up their noise.
        { name: `p99 ratio, ${side} / ${BARE}`, value: round(ratioOf(one) / bare), atMost: 1 + NOISE },
      ];
    });
}

type Load = Worker<OpenLoopQuestion, OpenLoopAnswer>;

function startLoad(side: Side, name: string): Load {
  const { port, http2Port } = side;
  const options: OpenLoopOptions = { host: '127.0.0.1', port, http2Port, name, http2Connections: 8 };
  return Worker.start(new URL('./clients/open-loop-main.ts', import.meta.url), options);
}

/**
 * 30 % of what each proxy answers at most, the same for all sides that have that proxy: they are compared. The median of many
 * looks, for a shared machine is half as fast again from one minute to the next.
 */
async function ratesOf(sides: readonly Side[]): Promise<Map<string, number>> {
  const found = new Map<string, number[]>();
  for (let n = 0; n < SATURATE_TIMES; n++) {
    for (const side of sides) {
      found.set(side.proxy, [...(found.get(side.proxy) ?? []), await saturation(side, `saturate${n}`)]);
    }
  }
  return new Map([...found].map(([proxy, perSecond]) => [proxy, Math.round(median(perSecond) * LOAD_PART)]));
}

async function saturation(side: Side, name: string): Promise<number> {
  const load = startLoad(side, name);
  try {
    const answer = await load.ask({ saturate: SATURATE });
    return 'perSecond' in answer ? answer.perSecond : 0;
  } finally {
    load.stop();
  }
}

async function handOver(side: Side, n: number, rate: number): Promise<Round> {
  const load = startLoad(side, `round${n}`);
  try {
    await load.ask({ rate });
    await sleep(WARM_UP_MS + STEADY_MS);
    await load.ask({ hold: HELD_MS });
    const from = Date.now();
    const oldPid = await side.handOver();
    const takeOverMs = Date.now() - from;
    const oldEnd = oldPid === undefined ? from : await processEnd(oldPid, OLD_LIMIT_MS);
    const until = Math.max(oldEnd, from + takeOverMs + LEAST_AFTER_MS) + TAIL_MS;
    await sleep(until - Date.now());
    await side.settled();
    const measured = roundOf((await load.ask('report')) as OpenLoopReport, from, until, takeOverMs);
    return { rate, ...measured };
  } finally {
    load.stop();
  }
}

function roundOf(report: OpenLoopReport, from: number, until: number, takeOverMs: number): Omit<Round, 'rate'> {
  const between = (start: number, end: number) => report.latencyMs.filter((_, i) => within(report.due[i], start, end));
  const steadyP99 = round(percentile([...between(from - STEADY_MS, from)], 0.99));
  const during = [...between(from, until)];
  const duringP99 = round(percentile(during, 0.99));
  const failures = report.failures.filter(({ at }) => within(at, from - STEADY_MS, until));
  const seconds = Math.floor((until - from) / 1000);
  return {
    steadyP99,
    duringP99,
    ratio: round(duringP99 / steadyP99),
    duringMs: until - from,
    takeOverMs,
    requests: during.length + failures.length,
    failed: failures.length,
    failures: failures.slice(0, 5).map(({ what }) => what),
    p99BySecond: Array.from({ length: seconds }, (_, i) => {
      const values = [...between(from + i * 1000, from + (i + 1) * 1000)];
      return values.length === 0 ? Number.NaN : round(percentile(values, 0.99));
    }),
  };
}

function within(at: number | undefined, from: number, until: number): boolean {
  return at !== undefined && at >= from && at < until;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
