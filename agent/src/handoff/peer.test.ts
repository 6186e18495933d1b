import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  askPeerLingering,
  askPeerLoad,
  createPeerServer,
  findPeer,
  PEER_PROTOCOL,
  type PeerState,
  peerSocket,
  type Served,
  STEPS,
  type Step,
  tellPeer,
} from './peer.ts';
import { lastReserved, reserveEpoch } from './reserve.ts';

const serving = {
  epoch: 3,
  restartEpoch: 1,
  socketPath: '@s',
  baseId: 1,
  concurrency: 2,
  version: '1.40.0',
  binary: '/envoy',
  adminAddress: '/a.sock',
};
const state: PeerState = { v: PEER_PROTOCOL, proxy: 'p', slot: '1', nextEpoch: 4, serving };
const served: (Served & { step: Step })[] = [];
const handlers = {
  state: () => state,
  step: async (step: Step, message: Served) => {
    served.push({ step, ...message });
  },
  load: async () => reading,
};
const reading = { at: 7, concurrency: 2, refused: 0, opened: 5, openedTls: 1, handshakes: 1, failed: 0 };
const closing: (() => Promise<void>)[] = [];
let shared: string;
beforeEach(() => {
  shared = mkdtempSync(join(tmpdir(), 'sluice-peer-'));
  served.length = 0;
});
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
  rmSync(shared, { recursive: true });
});

async function open(slot: string): Promise<void> {
  closing.push((await createPeerServer(shared, slot, handlers, () => undefined)).close);
}

/** A peer that answers anything at all. */
async function liar(slot: string, status: number, body: string): Promise<void> {
  const server = createServer((_, response) => response.writeHead(status).end(body));
  await new Promise<void>((resolve) => server.listen(peerSocket(shared, slot), resolve));
  closing.push(() => new Promise((resolve) => server.close(() => resolve())));
}

test('finds the agent of the other slot, never itself, and tells it that it serves', async () => {
  await open('1');
  expect(await findPeer(shared, '1')).toBeUndefined();
  const peer = await findPeer(shared, '2');
  expect(peer?.state).toEqual(state);
  const message = { epoch: 4, from: 3, upgradeId: 'u', slot: '2' };
  for (const step of STEPS) await tellPeer(peer?.path ?? '', step, message);
  expect(served).toEqual(STEPS.map((step) => ({ step, ...message })));
});

test('the socket of a dead agent is no peer', async () => {
  writeFileSync(peerSocket(shared, '1'), '');
  expect(await findPeer(shared, '2')).toBeUndefined();
  expect(await findPeer(join(shared, 'nothing'), '2')).toBeUndefined();
});

test('two agents that claim one slot: the second is refused', async () => {
  await open('1');
  await expect(open('1')).rejects.toMatchObject({ code: 'SLOT_TAKEN' });
  const claims = await Promise.allSettled([open('2'), open('2'), open('2')]);
  expect(claims.filter((c) => c.status === 'fulfilled')).toHaveLength(1);
});

test.each([
  ['no JSON', 200, '<html>', 'INPUT_INVALID'],
  ['null', 200, 'null', 'PROTOCOL_UNSUPPORTED'],
  ['another protocol', 200, JSON.stringify({ ...state, v: 9 }), 'PROTOCOL_UNSUPPORTED'],
  ['no number', 200, JSON.stringify({ ...state, nextEpoch: 'four' }), 'INPUT_INVALID'],
  ['half an epoch', 200, JSON.stringify({ ...state, serving: { epoch: 3 } }), 'INPUT_INVALID'],
  ['lingering epochs that are no list', 200, JSON.stringify({ ...state, lingering: {} }), 'INPUT_INVALID'],
  ['half a lingering one', 200, JSON.stringify({ ...state, lingering: [{ epoch: 1 }] }), 'INPUT_INVALID'],
  ['an error', 500, 'oops', 'INPUT_INVALID'],
  ['100 KB and more', 200, ' '.repeat(100_000), 'TOO_LARGE'],
])('a peer that answers %s is refused by name', async (_, status, body, code) => {
  await liar('1', status, body);
  await expect(findPeer(shared, '2')).rejects.toMatchObject({ code });
});

test('a message that is none is refused and changes nothing', async () => {
  await open('1');
  await expect(tellPeer(peerSocket(shared, '1'), 'served', { epoch: 'x' } as never)).rejects.toMatchObject({
    code: 'INPUT_INVALID',
  });
  expect(served).toEqual([]);
});

test('an epoch number is given out once', () => {
  expect(lastReserved(shared)).toBe(-1);
  const numbers = [reserveEpoch(shared, 0), reserveEpoch(shared, 0), reserveEpoch(shared, 7), reserveEpoch(shared, 2)];
  expect(numbers).toEqual([0, 1, 7, 8]);
});

test('tells what its serving epoch has borne; one that does not know the question tells nothing', async () => {
  await open('1');
  expect(await askPeerLoad(shared, '1')).toEqual(reading);
  await liar('2', 200, '{}');
  expect(await askPeerLoad(shared, '2')).toBeUndefined();
  await liar('3', 400, '{"code":"SLUICE_INPUT_INVALID"}');
  await expect(askPeerLoad(shared, '3')).rejects.toMatchObject({ code: 'INPUT_INVALID' });
});

test('tells what its old epochs hold; an older agent, or none, tells nothing', async () => {
  expect(await askPeerLingering(shared, '2')).toEqual([]);
  const lingering = [{ epoch: 2, privateBytes: 5, holding: 1, budgetMiB: 0, lingers: true }];
  await liar('1', 200, JSON.stringify({ ...state, lingering }));
  expect(await askPeerLingering(shared, '2')).toEqual(lingering);
  await open('3');
  expect(await askPeerLingering(shared, '1')).toEqual([]);
});
