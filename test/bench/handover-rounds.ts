import { availableParallelism } from 'node:os';
import { SMALL_HEAP } from '../harness/upstream/handle.ts';
import { type Check, median } from './bench.ts';
import type { OpenLoopOptions, OpenLoopQuestion, OpenLoopReport } from './clients/open-loop.ts';
import type { OpenLoopAnswer } from './clients/open-loop-main.ts';
import { Worker } from './clients/worker.ts';
import { BARE_PARENT_S, type Side } from './handover-sides.ts';
import { processEnd, sleep } from './running.ts';
import { type Span, Stalls, stalledIn } from './stalls.ts';
import { percentile, round } from './stats.ts';

/** Of the requests of a calm round no larger part met a stall of the machine, before or during. */
const CALM = 0.02;
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
/** Of a machine with more, what a request needs is not told by looking at each. */
const MOST_CORES = 8;

interface P99 {
  readonly steadyP99: number;
  readonly duringP99: number;
  readonly ratio: number;
}

interface Round extends P99 {
  readonly rate: number;
  /** With what had part in a stall of the machine, and how large a part of the requests that is. */
  readonly all: P99;
  readonly stalled: { readonly steady: number; readonly during: number };
  readonly duringMs: number;
  readonly takeOverMs: number;
  readonly requests: number;
  readonly failed: number;
  readonly failures: readonly string[];
  /** p99 of each second from the handover on. */
  readonly p99BySecond: readonly number[];
}

export interface Measured {
  readonly side: string;
  readonly rounds: readonly Round[];
  readonly answeredTwice: number;
}

export interface Contest {
  readonly sides: Readonly<Record<string, () => Promise<Side>>>;
  /** Here for what they lose: one round. */
  readonly once: readonly string[];
  readonly rounds: number;
  /** A side gets more than those while too few of them were calm. */
  readonly mostRounds: number;
}

/** For the report. `stallsNotSeen`: why stalls of the machine are not left out. */
interface Raw {
  readonly rounds: number;
  readonly heldMs: number;
  readonly stallsNotSeen?: string;
  readonly method: string;
  readonly sides: readonly Measured[];
}

/** Hands each side over again and again under open-loop load. `sideOf` throws where no side has that name. */
export async function measureSides(
  contest: Contest,
  say: (text: string) => void,
): Promise<{ readonly sideOf: (name: string) => Measured; readonly raw: Raw }> {
  const running: { readonly name: string; readonly side: Side; readonly rounds: Round[] }[] = [];
  const cores = availableParallelism();
  const stalls = await Stalls.start(Array.from({ length: cores <= MOST_CORES ? cores : 0 }, (_, core) => core));
  if (stalls.missing !== undefined) say(`stalls of the machine are not left out: ${stalls.missing}`);
  try {
    for (const [name, start] of Object.entries(contest.sides)) running.push({ name, side: await start(), rounds: [] });
    const rates = await ratesOf(running.map(({ side }) => side));
    say(`30 % of saturation: ${[...rates].map(([proxy, rate]) => `${proxy} ${rate}`).join(', ')} a second`);
    // Round by round, so that what else the machine does falls on all sides alike.
    for (let n = 1; n <= contest.mostRounds; n++) {
      for (const { name, side, rounds } of running) {
        if (hasEnough(name, rounds, contest)) continue;
        const one = await handOver(side, n, rates.get(side.proxy) ?? 0, stalls);
        rounds.push(one);
        say(`round ${n}, ${name}: ${told(one)}`);
      }
    }
    const sides: Measured[] = [];
    for (const { name, side, rounds } of running) {
      sides.push({ side: name, rounds, answeredTwice: await side.twice() });
    }
    const { missing } = stalls;
    const raw = {
      rounds: contest.rounds,
      heldMs: HELD_MS,
      ...(missing !== undefined && { stallsNotSeen: missing }),
      method: methodOf(contest),
      sides,
    };
    return { sideOf: (name) => named(sides, name), raw };
  } finally {
    stalls.stop();
    for (const { side } of running) await side.stop();
  }
}

function named(sides: readonly Measured[], name: string): Measured {
  const found = sides.find(({ side }) => side === name);
  if (found) return found;
  throw new Error(`expected the side ${name}, found ${sides.map(({ side }) => side).join(', ')}`);
}

/** What a side of ours must hold, whatever the others come to. */
export function checksOf(one: Measured, contest: Contest): Check[] {
  return [
    { name: `handovers, ${one.side}`, value: one.rounds.length, atLeast: contest.rounds },
    { name: `failed requests, ${one.side}`, value: failedOf(one), atMost: 0 },
    { name: `p99 during / steady, ${one.side}`, value: ratioOf(one, contest), atMost: 1.2 },
  ];
}

/**
 * Of the medians, not the median of the rounds' own: what the machine does comes in bursts, not in whole rounds, so two
 * sides of one round have nothing in common and dividing them adds up their noise.
 */
export function besideCheck(
  one: Measured,
  other: Measured,
  { contest, atMost }: { contest: Contest; atMost: number },
): Check {
  const value = round(ratioOf(one, contest) / ratioOf(other, contest));
  return { name: `p99 ratio, ${one.side} / ${other.side}`, value, atMost };
}

/** Median p99 during / p99 steady of the rounds in which the machine was calmest, whatever they came to. */
function ratioOf({ rounds }: Measured, contest: Contest): number {
  const calmest = [...rounds].sort((a, b) => unrest(a) - unrest(b)).slice(0, contest.rounds);
  return median(calmest.map(({ ratio }) => ratio));
}

function failedOf({ rounds, answeredTwice }: Measured): number {
  return rounds.reduce((total, { failed }) => total + failed, 0) + answeredTwice;
}

/** How the figures came about. */
function methodOf({ rounds, mostRounds }: Contest): string {
  return (
    'Open loop at 30 % of the saturation of the proxy (median of what was found before the rounds, at all sides that have ' +
    'it); each latency counts from the moment at which its request was due. steady: 8 s before the handover. during: from the ' +
    'order to hand over (checks of the new version included) to the end of the old process + 1 s, and to 7.5 s after the ' +
    'take-over at least; a request of 5.5 s is in flight on every side, so that the windows are alike. no handover: what the ' +
    'machine and the clients alone do to the same figures. Left out of both is what was in flight while a core of the machine ' +
    'stood still for more than 1 ms (a virtual one has them taken away; seen by a SCHED_FIFO process on each core), or so long ' +
    'after it; `all` has these too, `stalled` says how large a part they are. ratio = p99 during / p99 steady of one round. A ' +
    `side has ${rounds} rounds, and up to ${mostRounds} while in fewer of them at most ${CALM * 100} % were left out, before ` +
    'and during; the checks take the median of those with the least left out.'
  );
}

function hasEnough(name: string, rounds: readonly Round[], contest: Contest): boolean {
  if (contest.once.includes(name)) return rounds.length > 0;
  return rounds.filter((one) => unrest(one) <= CALM).length >= contest.rounds;
}

/** The larger part of the requests that met a stall: of those before, or of those during. */
function unrest({ stalled }: Round): number {
  return Math.max(stalled.steady, stalled.during);
}

function told(one: Round): string {
  const stalled = `${round(unrest(one) * 100, 1)} % stalled, x ${one.all.ratio} with these`;
  return (
    `${one.rate} a second, ${one.failed} of ${one.requests} failed, p99 ${one.duringP99} ms during, ` +
    `${one.steadyP99} ms steady (x ${one.ratio}; ${stalled}), taken over after ${one.takeOverMs} ms`
  );
}

type Load = Worker<OpenLoopQuestion, OpenLoopAnswer>;

function startLoad(side: Side, name: string): Load {
  const { port, http2Port } = side;
  const options: OpenLoopOptions = { host: '127.0.0.1', port, http2Port, name, http2Connections: 8 };
  return Worker.start(new URL('./clients/open-loop-main.ts', import.meta.url), options, SMALL_HEAP);
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

async function handOver(side: Side, n: number, rate: number, stalls: Stalls): Promise<Round> {
  const load = startLoad(side, `round${n}`);
  try {
    await stalls.report(); // what was before
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
    const report = (await load.ask('report')) as OpenLoopReport;
    return { rate, takeOverMs, ...roundOf(report, from, until, await stalls.report()) };
  } finally {
    load.stop();
  }
}

function roundOf(
  report: OpenLoopReport,
  from: number,
  until: number,
  stalls: readonly Span[],
): Omit<Round, 'rate' | 'takeOverMs'> {
  const { due, latencyMs } = report;
  const stalled = stalledIn(stalls);
  const between = (start: number, end: number, counts: (at: number, ms: number) => boolean = () => true) => [
    ...latencyMs.filter((ms, i) => {
      const at = due[i];
      return at !== undefined && within(at, start, end) && counts(at, ms);
    }),
  ];
  const quiet = (at: number, ms: number) => !stalled(at, at + ms);
  const begin = from - STEADY_MS;
  const steady = { all: between(begin, from), quiet: between(begin, from, quiet) };
  const during = { all: between(from, until), quiet: between(from, until, quiet) };
  const failures = report.failures.filter(({ at }) => within(at, begin, until));
  const seconds = Math.floor((until - from) / 1000);
  return {
    ...p99Of(steady.quiet, during.quiet),
    all: p99Of(steady.all, during.all),
    stalled: {
      steady: round(1 - steady.quiet.length / steady.all.length, 3),
      during: round(1 - during.quiet.length / during.all.length, 3),
    },
    duringMs: until - from,
    requests: during.all.length + failures.length,
    failed: failures.length,
    failures: failures.slice(0, 5).map(({ what }) => what),
    p99BySecond: Array.from({ length: seconds }, (_, i) => {
      const values = between(from + i * 1000, from + (i + 1) * 1000);
      return values.length === 0 ? Number.NaN : round(percentile(values, 0.99));
    }),
  };
}

function p99Of(steady: readonly number[], during: readonly number[]): P99 {
  const [steadyP99, duringP99] = [percentile(steady, 0.99), percentile(during, 0.99)];
  return { steadyP99: round(steadyP99), duringP99: round(duringP99), ratio: round(duringP99 / steadyP99) };
}

function within(at: number, from: number, until: number): boolean {
  return at >= from && at < until;
}
