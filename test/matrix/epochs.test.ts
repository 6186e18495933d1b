import { afterEach, describe, expect, it } from 'vitest';
import { ENVOY_VERSIONS } from '../harness/envoy-bin.ts';
import { freshConnections } from './fresh.ts';
import { measureResumption } from './resumption.ts';
import { type Rig, startRig } from './rig.ts';

const versions = ENVOY_VERSIONS.filter((version) => (process.env.SLUICE_MATRIX ?? version) === version);

let rig: Rig | undefined;
afterEach(async () => {
  await rig?.close();
  rig = undefined;
});

describe.each(versions)('from one epoch to the next, Envoy %s', (from) => {
  const to = ENVOY_VERSIONS[ENVOY_VERSIONS.indexOf(from) + 1] ?? from;

  it('connections that ask long after their handshake lose nothing, and tickets are good where the keys are configured', async () => {
    const started = await startRig(from, { http1: { silentIdleGraceMs: 1_000 } });
    rig = started;
    const loads = [freshConnections(started, 'tls', 100, 300), freshConnections(started, 'plain', 100, 300)];
    const tickets = await measureResumption(started, ['tls', 'mtls', 'tls-own-keys'], () => started.upgrade(to));
    await started.keeper.line('old epoch reset');
    for (const load of await Promise.all(loads.map((one) => one.stop(101)))) {
      expect(load.failures).toEqual([]);
      expect(load.answered).toBeGreaterThan(100);
    }
    expect(tickets.get('tls')).toEqual({ sameEpoch: true, nextEpoch: true });
    expect(tickets.get('mtls')).toEqual({ sameEpoch: true, nextEpoch: true });
    // Each Envoy makes its own keys where none are configured (docs/measured.md).
    expect(tickets.get('tls-own-keys')).toEqual({ sameEpoch: true, nextEpoch: false });
  });
});
