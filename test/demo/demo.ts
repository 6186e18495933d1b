import { envoyBinaries } from '../harness/envoy-bin.ts';
import { Mix } from '../harness/load/mix.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { Stack } from '../harness/stack.ts';
import { spawnUpstream, type UpstreamHandle } from '../harness/upstream/handle.ts';
import { paint } from './format.ts';
import type { DemoOptions } from './options.ts';
import { report } from './report.ts';
import { type DemoResult, lastEnd, type Noted, upgradeResult, WINDOW_TAIL_MS, windowOf } from './result.ts';
import { Follower, runUpgrade } from './upgrade.ts';
import { draw, reasons, Screen } from './view.ts';

const DRAW_EVERY_MS = 250;
const SAY_EVERY_MS = 5_000;
/** Between two upgrades, so that each is seen to serve. */
const BREATH_MS = 1_000;
const MAX_DRAIN_MS = 600_000;

/** The whole demo: start everything, upgrade under load, stop, reconcile, report. `complete`: every upgrade was done. */
export async function runDemo(
  options: DemoOptions,
  out: NodeJS.WriteStream,
  signal: AbortSignal,
): Promise<{ result: DemoResult; complete: boolean }> {
  const colours = paint(out.isTTY === true && process.env.NO_COLOR === undefined);
  const screen = new Screen(out);
  const begun = Date.now();
  const say = (text: string) =>
    screen.say(`${colours.dim(`${((Date.now() - begun) / 1000).toFixed(1).padStart(6)} s`)}  ${text}`);
  const block = await claimBlock();
  let upstream: UpstreamHandle | undefined;
  let stack: Stack | undefined;
  let mix: Mix | undefined;
  let undo = () => {};
  try {
    await envoyBinaries(options.versions, { onDownload: (version) => say(`downloading Envoy ${version}`) });
    upstream = await spawnUpstream(block);
    const [from = '', ...targets] = options.versions;
    say(`starting controller, agent and Envoy ${from}`);
    stack = await startStack(options, block, upstream);
    mix = new Mix(stack.targets, { rate: options.rate, sessionMs: options.sessionMs });
    mix.start();
    say(`load on: ${mix.clients.length} kinds of clients, ${options.rate} requests a second, none of them retries`);

    const follower = new Follower((view) => say(`${view.phase}: ${view.reason}`));
    const watching = new AbortController();
    void stack.api
      .watch((item) => follower.take(item), watching.signal)
      .catch((error) => say(`watch: ${error.message}`));
    const progress = new Progress(screen, mix, follower, colours, say, targets.length);
    undo = () => {
      watching.abort();
      progress.stop();
    };
    await pause(options.warmUpMs, signal);

    const notes: Noted[] = [];
    let trouble: string | undefined;
    for (const to of targets) {
      progress.step++;
      say(colours.bold(`upgrade ${progress.step} of ${targets.length}: to Envoy ${to}`));
      try {
        const noted = await race(runUpgrade(stack, follower, to, MAX_DRAIN_MS), signal);
        notes.push(noted);
        const log = mix.log.connections;
        const rest = (lastEnd(noted, log) ?? Date.now()) + WINDOW_TAIL_MS - Date.now();
        await pause(Math.max(BREATH_MS, rest), signal);
      } catch (error) {
        trouble = (error as Error).message;
        say(colours.bad(`upgrade ${progress.step} did not end well: ${trouble}`));
        break;
      }
    }
    undo();
    const proxy = await stack.api.proxy(stack.proxy).catch(() => undefined);
    say('load off: waiting for what is in flight');
    await mix.stop();
    const mismatches = mix.reconcile(await upstream.seen());
    const seconds = (Date.now() - begun) / 1000;

    const load = mix;
    const log = load.log.connections;
    const upgrades = notes.map((noted) => {
      const { from: start, to: end } = windowOf(noted, log);
      return upgradeResult(noted, log, load.idleHttp2.records, load.counts(start, end));
    });
    const clients = load.counts();
    const failed = clients.reduce((sum, one) => sum + one.failed, 0);
    const rss = proxy?.agents[0]?.agentRss;
    const input = { upgrades, clients, seconds, mismatches: mismatches.length };
    screen.say(report(rss === undefined ? input : { ...input, agentRss: rss }, colours));
    if (trouble !== undefined) screen.say(colours.bad(`Not all upgrades were done: ${trouble}`));
    return { result: { upgrades, failed }, complete: trouble === undefined };
  } finally {
    undo();
    await mix?.stop();
    await stack?.stop();
    await upstream?.stop();
    if (options.keep) screen.say(`logs and run folder: ${block.dir}`);
    await block.release(options.keep);
  }
}

function startStack(options: DemoOptions, block: Block, upstream: UpstreamHandle): Promise<Stack> {
  return Stack.start({
    block,
    upstream: upstream.ports,
    from: options.versions[0] as string,
    versions: options.versions,
    policy: { http1: { silentIdleGraceMs: options.silentIdleGraceMs }, maxDrainMs: MAX_DRAIN_MS },
  });
}

/** The live view in a terminal, and a line now and then without one. */
class Progress {
  step = 0;
  private peak = 1;
  private last = { at: Date.now(), total: 0 };
  private perSecond = 0;
  private readonly startedAt = Date.now();
  private readonly timer: NodeJS.Timeout;
  private readonly mix: Mix;
  private readonly follower: Follower;

  constructor(
    screen: Screen,
    mix: Mix,
    follower: Follower,
    colours: ReturnType<typeof paint>,
    say: (text: string) => void,
    steps: number,
  ) {
    this.mix = mix;
    this.follower = follower;
    const everyMs = screen.live ? DRAW_EVERY_MS : SAY_EVERY_MS;
    this.timer = setInterval(() => {
      const { total, failed } = this.count();
      const { proxy } = this.follower;
      const upgrade = [...this.follower.upgrades.values()].findLast((one) => one.resetAt === undefined);
      const old = upgrade?.verdict?.total ?? 0;
      this.peak = old === 0 ? 1 : Math.max(this.peak, old);
      const { step, perSecond, peak, startedAt } = this;
      const scene = { now: Date.now(), startedAt, total, failed, perSecond, step, steps, proxy, upgrade, peak };
      if (screen.live) screen.draw(draw(scene, colours));
      else {
        const left = old > 0 && upgrade !== undefined ? `; ${old} old connections: ${reasons(upgrade)}` : '';
        say(`${total} requests, ${perSecond}/s, ${failed} failed${left}`);
      }
    }, everyMs);
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private count(): { total: number; failed: number } {
    let total = 0;
    let failed = 0;
    for (const { tally } of this.mix.clients) {
      total += tally.total;
      failed += tally.failed;
    }
    const now = Date.now();
    if (now - this.last.at >= 1000) {
      this.perSecond = Math.round(((total - this.last.total) * 1000) / (now - this.last.at));
      this.last = { at: now, total };
    }
    return { total, failed };
  }
}

/** @throws the signal's reason */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return race(new Promise((resolve) => setTimeout(resolve, ms)), signal);
}

function race<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason as Error);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
