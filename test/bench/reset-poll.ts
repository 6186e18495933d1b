import { claimBlock } from '../harness/ports.ts';
import { spawnUpstream } from '../harness/upstream/handle.ts';
import { NativeEnvoy } from './native.ts';
import type { TrafficMix } from './reset.ts';
import { type MixResult, MixRun } from './reset-mix.ts';

const POLL_MS = 1_000;
const TIMEOUT_MS = 60_000;
const FLAGS = ['--drain-time-s', '60', '--drain-strategy', 'gradual'];

/**
 * What the shutdown managers of Envoy Gateway and Contour do: fail the health check, drain gracefully, look once a second
 * whether any connection is left, and end the process then or at their timeout.
 */
export async function pollSide(
  mix: TrafficMix,
  [from, to]: readonly [string, string],
  say: (text: string) => void,
): Promise<MixResult> {
  const block = await claimBlock();
  const upstream = await spawnUpstream(block);
  const ports = async () => ({
    host: '127.0.0.1',
    http: await block.port(),
    tls: await block.port(),
    tcp: await block.port(),
  });
  const side = async (version: string) => {
    const [targets, adminPort] = [await ports(), await block.port()];
    const options = { block, upstream: upstream.ports, targets, adminPort, flags: FLAGS, concurrency: 1 };
    return { targets, envoy: await NativeEnvoy.start(version, 0, options) };
  };
  const envoys: NativeEnvoy[] = [];
  let run: MixRun | undefined;
  try {
    const old = await side(from);
    envoys.push(old.envoy);
    const fresh = await side(to);
    envoys.push(fresh.envoy);
    run = await MixRun.start(mix, old.targets);
    const orderAt = Date.now();
    await run.drainBegun(old.envoy.child.pid, orderAt, fresh.targets);
    await old.envoy.admin('POST', '/healthcheck/fail');
    await old.envoy.admin('POST', '/drain_listeners?graceful&skip_exit');
    let next = orderAt;
    while (Date.now() < orderAt + TIMEOUT_MS) {
      next += POLL_MS;
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, next - Date.now())));
      if ((await active(old.envoy)) === 0) break;
    }
    const resetAt = Date.now();
    const ended = run.processEnded(old.envoy.child.pid, 10_000, () => resetAt);
    old.envoy.child.kill('SIGTERM');
    const result = await ended;
    say(`polling, ${mix.name}: reset after ${result.resetMs} ms, ${result.cut} cut`);
    return result;
  } finally {
    run?.stop();
    for (const { child } of envoys) await child.stop();
    await upstream.stop();
    await block.release();
  }
}

/** Connections on its listeners, the admin's not among them. */
async function active(envoy: NativeEnvoy): Promise<number> {
  const text = await envoy.admin('GET', '/stats?filter=^listener\\.[0-9.]*_[0-9]*\\.downstream_cx_active$');
  const values = text.matchAll(/downstream_cx_active: (\d+)/g);
  return [...values].reduce((sum, [, value]) => sum + Number(value), 0);
}
