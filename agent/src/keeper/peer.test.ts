import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { namesOf } from '../broker/names.ts';
import type { Epoch } from '../epochs/epoch.ts';
import { peerSocket, type Step, tellPeer } from '../handoff/peer.ts';
import { Standing } from '../handoff/standing.ts';
import type { KeeperContext } from './context.ts';
import type { Drains } from './drains.ts';
import { Exclusive } from './exclusive.ts';
import { openPeer } from './peer.ts';

let shared: string;
let context: KeeperContext;
const end = new AbortController();
/** Where the Envoy that serves believes its child to be. */
const party = { epoch: 0, socketPath: `@sluice-peer-test-${process.pid}` };
const { itsChild } = namesOf(7, party);
const closing: (() => Promise<void>)[] = [];

beforeEach(async () => {
  shared = mkdtempSync(join(tmpdir(), 'sluice-keeper-peer-'));
  const now = Date.now();
  const meta = { state: 'serving', servingSince: now, startedAt: now, baseId: 7 };
  const old = { number: 3, meta, party, process: { pid: 0 }, admin: { post: async () => '' } } as unknown as Epoch;
  context = {
    config: { shared, slot: '1', proxy: 'p', startTimeoutMs: 120_000 },
    registry: { get: (epoch: number) => (epoch === 3 ? old : undefined), serving: () => old },
    exclusive: new Exclusive(),
    standing: new Standing(),
    kept: { closeAll: () => {} },
    log: () => {},
    now: Date.now,
    signal: end.signal,
  } as unknown as KeeperContext;
  const drains = { begin: () => {} } as unknown as Drains;
  closing.push((await openPeer(context, drains)).close);
});
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
  rmSync(shared, { recursive: true });
});

const tell = (step: Step, upgradeId: string, slot = '2') =>
  tellPeer(peerSocket(shared, '1'), step, { epoch: 4, from: 3, upgradeId, slot });

/** The agent of the other slot, as far as it can be seen: its socket. */
async function taker(): Promise<Server> {
  const server = createServer((socket) => socket.on('error', () => {}).end());
  await once(server.listen(peerSocket(shared, '2')), 'listening');
  return server;
}

test('a peer that is killed while it takes over holds nobody: what serves here is its own again', async () => {
  const peer = await taker();
  await tell('taking', 'a');
  expect(context.exclusive.busy).toBe(true);
  // The second look comes after the first one has ended.
  await once(peer, 'connection');
  await once(peer, 'connection');
  expect(context.standing.facts.taking).toBe('a');
  peer.close();
  await vi.waitFor(() => expect(context.standing.facts.taking).toBeUndefined(), 5_000);
  // What that one's broker is owed is heard by us: an Envoy whose answer finds nobody ends itself.
  await vi.waitFor(() => expect(readFileSync('/proc/net/unix', 'latin1')).toContain(`@${itsChild}@`), 1_000);
  await expect(tell('taking', 'b')).rejects.toMatchObject({ code: 'UPGRADE_CONFLICT' });
  await vi.waitFor(() => expect(context.exclusive.busy).toBe(false), 5_000);
  await tell('taking', 'b');
  await tell('served', 'b');
});

test('the agent of that slot that starts again may take over at once; the end of the try before is not its end', async () => {
  const peer = await taker();
  closing.push(async () => void peer.close());
  await tell('taking', 'a');
  await tell('taking', 'b');
  await tell('gave-up', 'a');
  expect([context.standing.facts.taking, context.exclusive.busy]).toEqual(['b', true]);
  await expect(tell('taking', 'c', '3')).rejects.toMatchObject({ code: 'UPGRADE_CONFLICT' });
  await tell('served', 'b');
  await vi.waitFor(() => expect(context.exclusive.busy).toBe(false));
  expect(context.standing.facts).toMatchObject({ handedTo: { epoch: 4, slot: '2' } });
});
