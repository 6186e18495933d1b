import { claimBlock } from '../harness/ports.ts';
import { spawnUpstream } from '../harness/upstream/handle.ts';
import { NativeEnvoy } from './native.ts';
import type { TrafficMix } from './reset.ts';
import { type MixResult, MixRun } from './reset-mix.ts';

/** As the reference deployment has it: drainDuration 45 s, parentShutdownDuration 60 s. */
const FLAGS = ['--drain-time-s', '45', '--parent-shutdown-time-s', '60'];
const LIMIT_MS = 75_000;
/** Its line about its end may be read this much after the first connections were seen to end. */
const LOG_LATE_MS = 50;

/** One hot restart by flags with all mixes on it: when its parent ends depends on the timer alone. */
export async function fixedSide(
  mixes: readonly TrafficMix[],
  [from, to]: readonly [string, string],
  say: (text: string) => void,
): Promise<MixResult[]> {
  const block = await claimBlock();
  const upstream = await spawnUpstream(block);
  const targets = { host: '127.0.0.1', http: await block.port(), tls: await block.port(), tcp: await block.port() };
  const [adminPort, baseId] = [await block.port(), block.baseId()];
  const options = { block, upstream: upstream.ports, targets, adminPort, baseId, flags: FLAGS };
  const envoys: NativeEnvoy[] = [];
  let runs: MixRun[] = [];
  try {
    const old = await NativeEnvoy.start(from, 0, options);
    envoys.push(old);
    runs = await Promise.all(mixes.map((mix) => MixRun.start(mix, targets)));
    envoys.push(await NativeEnvoy.start(to, 1, options));
    const orderAt = await old.drainStart();
    await Promise.all(runs.map((run) => run.drainBegun(old.child.pid, orderAt)));
    const toldAt = async () => (await old.told) - LOG_LATE_MS;
    const results = await Promise.all(runs.map((run) => run.processEnded(old.child.pid, LIMIT_MS, toldAt)));
    for (const { mix, resetMs, cut } of results) say(`fixed, ${mix}: reset after ${resetMs} ms, ${cut} cut`);
    return results;
  } finally {
    for (const run of runs) run.stop();
    for (const { child } of envoys.reverse()) await child.stop();
    await upstream.stop();
    await block.release();
  }
}
