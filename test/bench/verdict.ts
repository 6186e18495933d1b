import net from 'node:net';
import { WebSocket } from 'ws';
import { Follower, runUpgrade } from '../demo/upgrade.ts';
import type { Targets } from '../harness/load/client.ts';
import { claimBlock } from '../harness/ports.ts';
import { Stack } from '../harness/stack.ts';
import { spawnUpstream } from '../harness/upstream/handle.ts';
import { type Bench, median } from './bench.ts';

const VERSIONS = ['1.36.4', '1.40.0', '1.38.3', '1.39.3', '1.36.4', '1.38.3', '1.40.0'];
const HOLD_MS = 1_500;

/** How long after the last protected connection ended the verdict says so; sessions are ended by their clients. */
export const verdictBench: Bench = async (say) => {
  const block = await claimBlock();
  const upstream = await spawnUpstream(block);
  const [from = '', ...targets] = VERSIONS;
  const raw: { from: string; to: string; endedAt: number; safeToResetAt: number; delayMs: number; resetMs: number }[] =
    [];
  const stack = await Stack.start({ block, upstream: upstream.ports, from, versions: VERSIONS });
  const watching = new AbortController();
  try {
    const follower = new Follower(() => {});
    void stack.api.watch((item) => follower.take(item), watching.signal).catch(() => {});
    for (const to of targets) {
      const sessions = await openSessions(stack.targets);
      const upgrade = runUpgrade(stack, follower, to, 60_000);
      const held = follower.when('the sessions are held', 30_000, () =>
        [...follower.upgrades.values()].find(
          ({ resetAt, verdict }) => resetAt === undefined && verdict?.protected === 4,
        ),
      );
      await Promise.race([held, upgrade.then(() => Promise.reject(new Error('reset with sessions on it')))]);
      await new Promise((resolve) => setTimeout(resolve, HOLD_MS + Math.random() * 1000));
      const endedAt = await sessions.end();
      const { view, from: old } = await upgrade;
      const { safeToResetAt = Number.NaN, resetAt = Number.NaN } = view;
      const delayMs = safeToResetAt - endedAt;
      raw.push({ from: old, to, endedAt, safeToResetAt, delayMs, resetMs: resetAt - safeToResetAt });
      say(
        `${old} -> ${to}: verdict ${delayMs} ms after the last session ended, reset ${resetAt - safeToResetAt} ms later`,
      );
    }
  } finally {
    watching.abort();
    await stack.stop();
    await upstream.stop();
    await block.release();
  }
  const delays = raw.map(({ delayMs }) => delayMs);
  return {
    checks: [
      { name: 'upgrades', value: raw.length, atLeast: targets.length },
      { name: 'verdict, median ms', value: median(delays), atMost: 500 },
      { name: 'verdict given too early', value: delays.filter((ms) => !(ms >= 0)).length, atMost: 0 },
    ],
    raw,
  };
};

/** Two TCP sessions and two WebSockets, each has echoed once: so both ends know them. */
async function openSessions(targets: Targets): Promise<{ end(): Promise<number> }> {
  const sockets = await Promise.all(
    [0, 1].map(async () => {
      const socket = net.connect(targets.tcp, targets.host);
      socket.write('bench/0/0\n');
      await new Promise((resolve, reject) => socket.once('data', resolve).once('error', reject));
      return socket;
    }),
  );
  const websockets = await Promise.all(
    [0, 1].map(async () => {
      const socket = new WebSocket(`ws://${targets.host}:${targets.http}/`, { perMessageDeflate: false });
      socket.once('open', () => socket.send('bench/0/0'));
      await new Promise((resolve, reject) => socket.once('message', resolve).once('error', reject));
      return socket;
    }),
  );
  return {
    async end() {
      const all = [...sockets, ...websockets].map((each) => new Promise((resolve) => each.once('close', resolve)));
      for (const socket of sockets) socket.end();
      for (const socket of websockets) socket.close(1000);
      await Promise.all(all);
      return Date.now();
    },
  };
}
