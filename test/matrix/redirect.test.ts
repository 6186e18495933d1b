import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ENVOY_VERSIONS } from '../harness/envoy-bin.ts';
import { start } from '../harness/process.ts';
import type { RedirectResult } from './redirect-main.ts';
import { OUTSIDE, WORLD } from './redirect-pod.ts';

const versions = ENVOY_VERSIONS.filter((version) => (process.env.SLUICE_MATRIX ?? version) === version);
/** A network namespace and a /dev/shm of its own: base ids and ports are nobody else's there. */
const ALONE = 'mount -t tmpfs tmpfs /dev/shm && ip link set lo up && exec "$@"';
const NEEDED = 'unshare -n -m true && command -v iptables nsenter setpriv';
const missing = spawnSync('sh', ['-c', NEEDED], { encoding: 'utf8' });
if (missing.status !== 0)
  console.log(`behind REDIRECT: skipped, it needs root, iptables and util-linux ${missing.stderr}`);

describe.skipIf(missing.status !== 0).each(versions)('behind REDIRECT, Envoy %s', (from) => {
  const to = ENVOY_VERSIONS[ENVOY_VERSIONS.indexOf(from) + 1] ?? from;

  it('virtual inbound and outbound listeners hand over and drain with no request failed', async () => {
    const main = path.join(import.meta.dirname, 'redirect-main.ts');
    const node = [process.execPath, '--conditions=sluice-source', main, from, to];
    const run = await start('unshare', ['-n', '-m', 'sh', '-c', ALONE, 'sh', ...node], { name: 'namespace' });
    await run.ended;
    const last = run.tail.trim().split('\n').at(-1) ?? '';
    expect(last, run.tail).toMatch(/^\{"inbound"/);
    const { inbound, outbound, old, cut } = JSON.parse(last) as RedirectResult;
    expect(inbound.failures).toEqual([]);
    expect(outbound.failures).toEqual([]);
    expect(Math.min(inbound.answered, outbound.answered)).toBeGreaterThan(0);
    expect(cut).toBe(0);
    // The build of 1.38.3 runs no filter, so nobody tells its connections by listener.
    if (from === '1.38.3') return;
    expect(Object.keys(old).sort()).toEqual([`${WORLD}_${OUTSIDE.http}`, 'virtualInbound', 'virtualOutbound']);
  });
});
