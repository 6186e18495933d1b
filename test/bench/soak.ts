import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { HeldClients } from '../harness/held.ts';
import { startMesh } from '../harness/mesh.ts';
import type { Bench } from './bench.ts';

const SOAK_MS = 5 * 60_000;
const RATE = 200;
const HELD = { http1: { silentIdleGraceMs: 3_600_000 } };

/**
 * After one upgrade and the reset of the old epoch the new one serves for five minutes; then three further epochs, each
 * old one kept alive by a silent idle connection, so that four epochs of four versions live at once; then the old three
 * are killed. Nothing may fail on the last.
 */
export const soakBench: Bench = async (say) => {
  const mesh = await startMesh({ envoy: await envoyBinary('1.39.3') });
  try {
    const { controller, port } = mesh;
    const load = newConnections(port, RATE);
    const first = await controller.startUpgrade('edge', await envoyBinary('1.38.3'), {
      http1: { silentIdleGraceMs: 500 },
    });
    await controller.phase(first.id, ['Done']);
    const resetAt = Date.now();
    for (let left = SOAK_MS; left > 0; left -= 30_000) {
      say(`${left / 1_000} s to go, ${load.counts.answered} answered`);
      await new Promise((resolve) => setTimeout(resolve, 30_000));
    }
    const soaked = { ...load.counts, failures: [...load.counts.failures] };
    const held: HeldClients[] = [];
    for (const version of ['1.40.0', '1.36.4', '1.39.3']) {
      held.push(await HeldClients.open(port));
      const upgrade = await controller.startUpgrade('edge', await envoyBinary(version), HELD);
      await controller.phase(upgrade.id, ['Draining']);
    }
    const epochs = (await controller.proxy('edge')).epochs;
    const versions = new Set(epochs.map((e) => e.version));
    for (const old of epochs.filter((e) => e.state === 'draining')) process.kill(old.pid, 'SIGKILL');
    const before = load.counts.answered;
    while (load.counts.answered < before + RATE * 10) await new Promise((resolve) => setTimeout(resolve, 100));
    const counts = await load.stop();
    for (const one of held) one.close();
    return {
      checks: [
        { name: 'failed in five minutes after the reset', value: soaked.refused + soaked.lost, atMost: 0 },
        { name: 'epochs alive at once', value: epochs.length, atLeast: 4 },
        { name: 'versions alive at once', value: versions.size, atLeast: 4 },
        { name: 'failed in all, three old epochs killed', value: counts.refused + counts.lost, atMost: 0 },
        { name: 'connections answered', value: counts.answered, atLeast: (SOAK_MS / 1_000) * RATE },
      ],
      raw: { soakMs: Date.now() - resetAt, soaked, counts, epochs: epochs.map(({ verdict: _, ...e }) => e) },
    };
  } finally {
    await mesh.close();
  }
};
