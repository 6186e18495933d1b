import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { bindDatagram, type Datagram, receive, send } from '../native/datagram.ts';
import { close, inode } from '../native/fds.ts';
import { watchReadable } from '../native/poller.ts';
import { absorbReplies, askListenSockets } from './ask.ts';
import { playParent, relayHandover } from './handover.ts';
import { KeptSockets } from './kept.ts';
import { namesOf, udpName } from './names.ts';
import type { HandoverEvent } from './types.ts';
import { relayUdp } from './udp.ts';
import {
  decodeMessage,
  encodeEmptyStatsReply,
  encodeListenSocketReply,
  encodeListenSocketRequest,
  encodeRequest,
  encodeShutdownAdminReply,
} from './wire.ts';

/** One side of a handover without an Envoy: a bound name that sends and receives. */
class Fake {
  readonly fd: number;
  readonly #to: string;

  constructor(own: string, to: string) {
    this.fd = bindDatagram(own);
    this.#to = to;
    open.push(this);
  }
  send(data: Buffer, fds: number[] = []): void {
    expect(send(this.fd, this.#to, data, fds)).toBe('sent');
  }
  async receive(): Promise<Datagram> {
    for (;;) {
      const datagram = receive(this.fd);
      if (datagram !== undefined) return datagram;
      await new Promise<void>((resolve) => {
        const watch = watchReadable(this.fd, () => {
          watch.stop();
          resolve();
        });
      });
    }
  }
  close(): void {
    close(this.fd);
    open.splice(open.indexOf(this), 1);
  }
}

let baseId = 500_000_000 + process.pid * 100;
const open: Fake[] = [];
const servers: Server[] = [];

afterEach(() => {
  for (const fake of [...open]) fake.close();
  for (const server of servers.splice(0)) server.close();
});

const parentParty = { epoch: 3, socketPath: '@sluice-unit-a' };
const childParty = { epoch: 7, socketPath: '@sluice-unit-b' };

function fakes() {
  baseId++;
  const p = namesOf(baseId, parentParty);
  const c = namesOf(baseId, childParty);
  return {
    parent: () => new Fake(p.parent, p.itsChild),
    child: () => new Fake(c.child, c.itsParent),
    options: { baseId, parent: parentParty, child: childParty },
  };
}

async function listening(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  return (server as unknown as { _handle: { fd: number } })._handle.fd;
}

const REQUEST = { address: 'tcp://127.0.0.1:1', worker: 0 };

function kind(datagram: Datagram): string {
  return decodeMessage(datagram.data.subarray(8)).kind;
}

test('datagrams pass untouched, the descriptor with them, and a dup of it is kept', async () => {
  const { parent: p, child: c, options } = fakes();
  const [parent, child, kept, socket] = [p(), c(), new KeptSockets(), await listening()];
  const handover = await relayHandover({ ...options, kept });
  child.send(encodeRequest('shutdownAdmin'));
  expect((await parent.receive()).data).toEqual(encodeRequest('shutdownAdmin'));
  parent.send(encodeShutdownAdminReply(7n));
  expect((await child.receive()).data).toEqual(encodeShutdownAdminReply(7n));
  expect(handover.originalStartSeconds).toBe(7);
  child.send(encodeListenSocketRequest(REQUEST));
  expect((await parent.receive()).data).toEqual(encodeListenSocketRequest(REQUEST));
  parent.send(encodeListenSocketReply(true), [socket]);
  const reply = await child.receive();
  expect(reply.data).toEqual(encodeListenSocketReply(true));
  expect(reply.fds.map(inode)).toEqual([inode(socket)]);
  expect(kept.list()).toMatchObject([{ ...REQUEST, inode: inode(socket), shared: true }]);
  for (const fd of reply.fds) close(fd);

  child.send(encodeRequest('drainListeners'));
  expect(kind(await parent.receive())).toBe('drainListeners');
  await handover.drainRequested;
  expect(kept.size).toBe(1);
  child.send(encodeRequest('terminate'));
  await handover.independent;
  expect(receive(parent.fd)).toBeUndefined();
  kept.closeAll();
});

test('a UDP socket beside which the child binds its own is not passed, and nothing of it is left', async () => {
  const { parent: p, child: c, options } = fakes();
  const [parent, child, socket] = [p(), c(), await listening()];
  const address = 'udp://127.0.0.1:1';
  const asked: unknown[] = [];
  const bindsBeside = (fd: number, udp: object) => {
    asked.push({ inode: inode(fd), ...udp });
    return true;
  };
  const handover = await relayHandover({ ...options, bindsBeside });
  child.send(encodeListenSocketRequest({ address, worker: 1 }));
  await parent.receive();
  parent.send(encodeListenSocketReply(true), [socket]);
  expect(await child.receive()).toMatchObject({ data: encodeListenSocketReply(false), fds: [] });
  expect(asked).toMatchObject([{ inode: inode(socket), address, worker: 1 }]);
  expect(handover.passed).toMatchObject([{ address, worker: 1, given: false, by: 'parent' }]);
  handover.close();
});

test('listeners are stopped by the way that the caller has, and by the relayed request when that fails', async () => {
  for (const fails of [false, true]) {
    const { parent: p, child: c, options } = fakes();
    const [parent, child] = [p(), c()];
    let stopped = 0;
    const stopListeners = async () => {
      stopped++;
      if (fails) throw new Error('admin is silent');
    };
    const handover = await relayHandover({ ...options, stopListeners });
    child.send(encodeRequest('drainListeners'));
    await handover.drainRequested;
    if (fails) expect(kind(await parent.receive())).toBe('drainListeners');
    child.send(encodeRequest('terminate'));
    await handover.independent;
    expect(receive(parent.fd)).toBeUndefined();
    expect(stopped).toBe(1);
  }
});

test('a child that asked for something while the parent could not be stopped by admin gets its answer', async () => {
  const { parent: p, child: c, options } = fakes();
  const [parent, child, silent] = [p(), c(), Promise.withResolvers<void>()];
  const handover = await relayHandover({ ...options, stopListeners: () => silent.promise });
  child.send(encodeRequest('drainListeners'));
  await handover.drainRequested;
  child.send(encodeRequest('stats'));
  expect(kind(await parent.receive())).toBe('stats');
  silent.reject(new Error('admin is silent'));
  expect(kind(await parent.receive())).toBe('drainListeners');
  parent.send(encodeEmptyStatsReply());
  expect(kind(await child.receive())).toBe('statsReply');
  child.send(encodeRequest('terminate'));
  await handover.independent;
});

test('what a build does not know is relayed both ways and told of', async () => {
  const { parent: p, child: c, options } = fakes();
  const [parent, child] = [p(), c()];
  const events: HandoverEvent[] = [];
  const handover = await relayHandover({ ...options, onEvent: (event) => events.push(event) });
  const strange = Buffer.from('00000000000000040a02fa01', 'hex');
  child.send(strange);
  expect((await parent.receive()).data).toEqual(strange);
  parent.send(strange);
  expect((await child.receive()).data).toEqual(strange);
  expect(events.filter(({ type }) => type === 'unknownMessage')).toMatchObject([{ from: 'child' }, { from: 'parent' }]);
  handover.close();
  await expect(handover.independent).rejects.toMatchObject({ code: 'EPOCH_DIED' });
});

test('a stranger is not heard', async () => {
  const { parent: p, child: c, options } = fakes();
  const [parent, child] = [p(), c()];
  const handover = await relayHandover(options);
  const stranger = new Fake(`sluice-unit-stranger-${baseId}`, namesOf(baseId, childParty).itsParent);
  stranger.send(encodeRequest('terminate'));
  child.send(encodeRequest('stats'));
  expect(kind(await parent.receive())).toBe('stats');
  handover.close();
});

test('a kept socket that the child did not take is let go when it serves', async () => {
  const { child: c, options } = fakes();
  const [child, kept] = [c(), new KeptSockets()];
  kept.put(REQUEST, await listening());
  kept.put({ address: 'tcp://127.0.0.1:2', worker: 0 }, await listening());
  const handover = await playParent({ ...options, kept });
  child.send(encodeRequest('shutdownAdmin'));
  await child.receive();
  // One socket for all workers answers each of them.
  for (const worker of [0, 1]) {
    child.send(encodeListenSocketRequest({ ...REQUEST, worker }));
    const { fds } = await child.receive();
    expect(fds).toHaveLength(1);
    for (const fd of fds) close(fd);
  }
  child.send(encodeRequest('drainListeners'));
  await handover.drainRequested;
  expect(kept.list().map(({ address }) => address)).toEqual([REQUEST.address]);
  handover.close();
  kept.closeAll();
});

test('the terminate request that a killed broker left outstanding is swallowed, and the kept set stays', async () => {
  const { child: c, options } = fakes();
  const [child, kept] = [c(), new KeptSockets()];
  kept.put(REQUEST, await listening());
  const handover = await playParent({ ...options, kept });
  child.send(encodeRequest('terminate'));
  await handover.independent;
  expect(kept.size).toBe(1);
  kept.closeAll();
});

test('every request gets an answer when there is no parent', async () => {
  const { child: c, options } = fakes();
  const child = c();
  const handover = await playParent({ ...options, kept: new KeptSockets(), originalStartSeconds: 7 });
  const ask = async (data: Buffer) => {
    child.send(data);
    const { data: answer } = await child.receive();
    return decodeMessage(answer.subarray(8));
  };
  expect(await ask(encodeRequest('shutdownAdmin'))).toMatchObject({ originalStartSeconds: 7n, reusePortDefault: true });
  expect(await ask(encodeRequest('stats'))).toEqual({ kind: 'statsReply' });
  expect(await ask(encodeListenSocketRequest(REQUEST))).toEqual({ kind: 'passListenSocketReply', fd: -1 });
  expect(await ask(Buffer.from('00000000000000040a02fa01', 'hex'))).toEqual({ kind: 'notRecognized' });
  handover.close();
});

test('a parent that ends with a request unanswered is answered for', async () => {
  const { parent: p, child: c, options } = fakes();
  const [parent, child, kept] = [p(), c(), new KeptSockets()];
  kept.put(REQUEST, await listening());
  const handover = await relayHandover({ ...options, kept });
  child.send(encodeRequest('shutdownAdmin'));
  await parent.receive();
  parent.close();
  // The next request finds the name gone; a pid would have told at once.
  child.send(encodeListenSocketRequest(REQUEST));
  const { fds } = await child.receive();
  expect(fds).toHaveLength(1);
  for (const fd of fds) close(fd);
  handover.close();
  kept.closeAll();
});

test('the answer owed to a child that is gone is taken in before the next handover begins', async () => {
  const { parent: p, child: c, options } = fakes();
  const [parent, child] = [p(), c()];
  const first = await relayHandover(options);
  child.send(encodeRequest('stats'));
  await parent.receive();
  first.close();
  const second = relayHandover(options);
  parent.send(encodeListenSocketReply(false));
  const handover = await second;
  expect(receive(child.fd)).toBeUndefined();
  handover.close();
});

test('a name that is held is a conflict, a signal ends the wait, and time is bounded', async () => {
  const { parent: p, child: c, options } = fakes();
  const controller = new AbortController();
  p();
  c();
  const first = await relayHandover({ ...options, signal: controller.signal });
  await expect(relayHandover(options)).rejects.toMatchObject({ code: 'UPGRADE_CONFLICT' });
  controller.abort(new Error('enough'));
  await expect(first.drainRequested).rejects.toThrow('enough');
  const second = await relayHandover({ ...options, timeoutMs: 1 });
  await expect(second.drainRequested).rejects.toMatchObject({ code: 'EPOCH_TIMEOUT' });
});

test('sockets are asked for worker by worker, and an answer that is not ours is dropped', async () => {
  const { parent: p, options } = fakes();
  const parent = p();
  const [mine, other] = [await listening(), await listening()];
  const sockets = [{ address: REQUEST.address, inode: inode(mine) }];
  const asked = askListenSockets({ baseId: options.baseId, envoy: parentParty, sockets });
  await parent.receive();
  parent.send(encodeListenSocketReply(true), [other]);
  parent.send(encodeListenSocketReply(true), [mine]);
  await parent.receive();
  parent.send(encodeListenSocketReply(false));
  const found = await asked;
  expect(found.map(({ request }) => request)).toEqual([REQUEST]);
  for (const { fd } of found) close(fd);
});

test('an Envoy that does not answer is given up, and its late answer taken in', async () => {
  const { parent: p, options } = fakes();
  const parent = p();
  const ask = { baseId: options.baseId, envoy: parentParty, sockets: [{ address: REQUEST.address, inode: 1 }] };
  await expect(askListenSockets({ ...ask, timeoutMs: 1 })).rejects.toMatchObject({ code: 'TIMEOUT' });
  const absorbed = absorbReplies({ ...ask, durationMs: 1 });
  parent.send(encodeListenSocketReply(false));
  expect(await absorbed).toBe(0);
});

test('datagrams of a parent go on to its child by the names beside those of hot restart', async () => {
  const { options } = fakes();
  const p = namesOf(options.baseId, options.parent);
  const c = namesOf(options.baseId, options.child);
  const parent = new Fake(udpName(p.parent), udpName(p.itsChild));
  const child = new Fake(udpName(c.child), udpName(c.itsParent));
  const relay = relayUdp({ ...options, onError: (error) => expect.unreachable(String(error)) });
  parent.send(Buffer.from('packet'));
  expect((await child.receive()).data.toString()).toBe('packet');
  expect(relay.passed).toBe(1);
  expect(() => relayUdp({ ...options, onError: () => {} })).toThrow(/expected the name/);
  // A child that is gone costs its datagrams and nothing else.
  child.close();
  parent.send(Buffer.from('nobody reads this'));
  relay.close();
});
